"""workspace: memory that the C++ kernels work in, kept from call to call."""

import torch

from engine.compute.kernels.library import Library


class Workspace:
    """Memory that is kept from call to call, and grows."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def of(self, num_bytes: int) -> int:
        """Give a pointer to so many bytes; good until more are wanted."""
        if len(self._bytes) < num_bytes:
            self._bytes = torch.empty(num_bytes + num_bytes // 4, dtype=torch.uint8)
        return self._bytes.data_ptr()


class Workspaces:
    """What attention and products of 8 bits need, whoever calls them."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._attention = Workspace()
        self._int8 = Workspace()

    def attention(self, group: int, max_length: int) -> int:
        """Give a pointer to a workspace for attention over so many tokens."""
        return self._attention.of(self._library.attend_workspace(group, max_length))

    def int8(self, num_rows: int, width: int) -> int:
        """Give a pointer to a workspace for rows of 8 bits."""
        return self._int8.of(self._library.int8_workspace(num_rows, width))
