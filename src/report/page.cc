#include "report/page.h"

#include "report/page_style.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>

namespace bitnet {
namespace {

std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const auto byte = [&](size_t k) { return i + k < bytes.size() ? uint32_t(uint8_t(bytes[i + k])) : 0u; };
    const uint32_t group = byte(0) << 16 | byte(1) << 8 | byte(2);
    for (size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

}  // namespace

std::string escaped_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string short_number(double value, bool percent) {
  if (percent) {
    const double hundredths = 100 * value, size = std::abs(hundredths);
    return size < 1     ? fmt::format("{:.2g}%", hundredths)
           : size < 999 ? fmt::format("{:.3g}%", hundredths)
                        : fmt::format("{:.0f}%", hundredths);
  }
  const double size = std::abs(value);
  if (size >= 1e6) return fmt::format("{:.4g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:.4g}k", value / 1e3);
  if (size < 1e-4) return fmt::format("{:.2g}", value);
  return fmt::format("{:.4g}", value);
}

std::string page_html(const std::string& title, const std::string& body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0}</title>\n<style>{1}{2}</style></head>\n<body><main>\n<h1>{0}</h1>\n{3}</main></body></html>\n",
      escaped_html(title), kPlotStyle, kPageStyle, body);
}

std::string tile_html(const std::string& value, const std::string& label, const std::string& note) {
  return fmt::format("<div class=\"tile\"><small>{}</small><b>{}</b><small>{}</small></div>\n", escaped_html(label),
                     escaped_html(value), escaped_html(note));
}

std::string figure_html(const std::string& title, const std::string& note, const std::string& legend,
                        const std::string& svg) {
  return fmt::format("<figure><figcaption><b>{}</b> <span>{}</span>{}</figcaption>\n{}</figure>\n", escaped_html(title),
                     escaped_html(note), legend, svg);
}

std::string svg_element(const std::string& label, double width, double height, const std::string& content) {
  return fmt::format("<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n{}</svg>", width, height,
                     escaped_html(label), content);
}

std::string svg_data_address(const std::string& svg) {
  const size_t end_of_tag = svg.find('>');
  if (end_of_tag == std::string::npos) return {};
  const std::string whole = svg.substr(0, end_of_tag) + " xmlns=\"http://www.w3.org/2000/svg\"><style>" + kPlotStyle +
                            "</style>" + svg.substr(end_of_tag + 1);
  return "data:image/svg+xml;base64," + base64(whole);
}

}  // namespace bitnet
