#pragma once

#include <string>
#include <vector>

namespace bitnet {

// A report as what it says, apart from how it is written down. All text is plain text; drawings come from chart_svg()
// and row_chart_svg().
struct ReportTable {
  std::vector<std::vector<std::string>> rows;  // the first one is the heading; of empty words: none
  size_t n_words = 1;                          // columns of words, in front; the others are numbers
  bool empty() const { return rows.size() < 2; }
};
struct ReportFigure {
  std::string title, note, svg;
};
struct ReportSection {
  std::string title;
  std::vector<std::string> paragraphs;
  std::vector<ReportFigure> figures;
  ReportTable table;
  std::string code;  // a block of plain text, such as a command
};
struct ReportTile {
  std::string value, label, note;
};
struct ReportDocument {
  std::string title, subtitle;
  std::vector<ReportTile> tiles;
  std::vector<ReportSection> sections;
};

// One page of HTML, with nothing in it that would be fetched, in light and dark, for wide and narrow windows.
std::string document_html(const ReportDocument& document);
// The same as Markdown, the drawings as pictures within the text ("data:" addresses): where a viewer leaves these out,
// the tables still say everything.
std::string document_markdown(const ReportDocument& document);

}  // namespace bitnet
