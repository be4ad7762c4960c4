// The large numbers of the live view: speed, rows, queue, blocks, permits, refusals.

import { make } from "./dom.js";

const shown = (number) => number.toLocaleString("en");

export class Numbers {
  constructor() {
    this.tiles = Object.fromEntries([
      ["rate", "Tokens a second", false],
      ["rows", "Rows of the batch", true],
      ["queue", "Waiting", false],
      ["blocks", "Cache blocks in use", true],
      ["permits", "Permits held", true],
      ["refused", "Refused so far", false],
    ].map(([name, title, hasMeter]) => [name, new Tile(title, hasMeter)]));
    this.element = make("dl", { class: "tiles" }, ...Object.values(this.tiles).map((tile) => tile.element));
  }

  /** Show a frame, under the limits that the hello told. */
  show(frame, hello, rate) {
    const { rate: speed, rows, queue, blocks, permits, refused } = this.tiles;
    speed.show(shown(Math.round(rate)), step(frame.step));
    rows.show(shown(frame.num_running), `of ${shown(hello.max_rows)}`, [frame.num_running / hello.max_rows]);
    queue.show(shown(frame.num_waiting), frame.num_waiting ? `${shown(frame.num_waiting_tokens)} prompt tokens` : "nobody");
    blocks.show(
      shown(frame.num_blocks_used),
      `of ${shown(hello.num_blocks)}, ${shown(frame.num_blocks_cached)} kept for prefixes`,
      [frame.num_blocks_used / hello.num_blocks, frame.num_blocks_cached / hello.num_blocks],
    );
    permits.show(shown(frame.num_permits_held), `of ${shown(hello.max_permits)}`, [frame.num_permits_held / hello.max_permits]);
    const reasons = Object.entries(frame.num_refused).filter(([, count]) => count);
    const total = reasons.reduce((sum, [, count]) => sum + count, 0);
    refused.show(shown(total), reasons.map(([name, count]) => `${shown(count)} ${name.replaceAll("_", " ")}`).join(", ") || "nobody");
  }
}

function step(last) {
  if (last === null) return "no step yet";
  const prompt = last.num_prefill_tokens ? `, ${shown(last.num_prefill_tokens)} of a prompt` : "";
  return `last step ${last.duration_ms.toFixed(1)} ms${prompt}`;
}

class Tile {
  constructor(title, hasMeter) {
    this.value = make("span", { class: "value number" }, "–");
    this.note = make("span", { class: "note number" });
    this.parts = hasMeter ? [make("span", { class: "used" }), make("span", { class: "kept" })] : [];
    const meter = hasMeter ? make("span", { class: "meter", "aria-hidden": "true" }, ...this.parts) : null;
    this.element = make("div", { class: "card tile" }, make("dt", {}, title),
      make("dd", {}, this.value, this.note, meter));
  }

  show(value, note, shares = []) {
    if (this.value.textContent !== value) this.value.textContent = value;
    if (this.note.textContent !== note) this.note.textContent = note;
    shares.forEach((share, index) => {
      this.parts[index].style.width = `${Math.min(1, share) * 100}%`;
    });
  }
}
