#pragma once

#include <string>
#include <string_view>

namespace bitnet {

// Pieces of pages of HTML that hold nothing which would be fetched, in light and dark, for any width of window.

std::string escaped_html(std::string_view text);
// "1.203", "1.5e-05", "18.23k", "33.1%": about four digits.
std::string short_number(double value, bool percent = false);

// A whole document; `title` is plain text, `body` is HTML.
std::string page_html(const std::string& title, const std::string& body);
// A number with a word above and a note below, plain text all; tiles stand in <div class="tiles">.
std::string tile_html(const std::string& value, const std::string& label, const std::string& note = {});
// `svg` and `legend` are HTML.
std::string figure_html(const std::string& title, const std::string& note, const std::string& legend,
                        const std::string& svg);

// An <svg> of this size around `content`, with `label` for those who cannot see it.
std::string svg_element(const std::string& label, double width, double height, const std::string& content);
// The same drawing as a "data:" address for an <img> anywhere: with its own style, light and dark.
std::string svg_data_address(const std::string& svg);

}  // namespace bitnet
