"""How the app looks: a theme without fonts from elsewhere, a style sheet, and the page's head."""

from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors, fonts, sizes

STYLE_PATH = Path(__file__).with_name("style.css")
ICON_PATH = Path(__file__).parents[1] / "web" / "icon.svg"
HEAD = '<meta name="color-scheme" content="light dark">'


def theme() -> gr.themes.Base:
    """Give the theme; which system font it is stands in the style sheet."""
    return gr.themes.Base(
        primary_hue=colors.teal,
        secondary_hue=colors.cyan,
        neutral_hue=colors.slate,
        radius_size=sizes.radius_md,
        font=fonts.Font("sans-serif"),
        font_mono=fonts.Font("monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_label_background_fill="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_500",
        block_label_text_color_dark="*neutral_400",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_300",
        block_title_text_weight="600",
        block_shadow="none",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        input_background_fill="white",
        input_background_fill_dark="*neutral_800",
        slider_color="*primary_600",
    )
