#include "report/document.h"

#include "report/chart.h"
#include "report/row_chart.h"
#include "report/test_html.h"

namespace bitnet {
namespace {

using testing::count_of;
using testing::expect_well_formed;

ReportDocument sample() {
  const RowChart rows{.title = "Speed", .note = "", .rows = {{.label = "a", .value = 1, .text = ""}}};
  ReportSection section{.title = "One & all",
                        .paragraphs = {"a < b, a_b*c"},
                        .figures = {{"Speed", "tokens/s", row_chart_svg(rows)}},
                        .table = {{{"name", "value"}, {"x|y", "1"}}, 1},
                        .code = "bitnet bench\n  --flag </pre>"};
  return {.title = "Report of <me>", .subtitle = "today", .tiles = {{"5", "Speed", "good"}}, .sections = {section}};
}

TEST(Document, IsOnePageOfHtml) {
  const std::string html = document_html(sample());
  expect_well_formed(html);
  EXPECT_EQ(html.find("://"), std::string::npos) << "nothing is fetched";
  for (const char* part :
       {"<title>Report of &lt;me&gt;</title>", "<h2>One &amp; all</h2>", "<td class=\"word\">x|y</td>", "<td>1</td>",
        "--flag &lt;/pre&gt;", "prefers-color-scheme", "width=device-width"}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
}

TEST(Document, IsMarkdownToo) {
  const std::string text = document_markdown(sample());
  for (const char* part : {"# Report of &lt;me&gt;\n", "- Speed: **5** good\n", "## One &amp; all\n",
                           "a &lt; b, a\\_b\\*c\n", "| name | value |\n|---|---:|\n| x\\|y | 1 |\n",
                           "    bitnet bench\n      --flag </pre>\n", "src=\"data:image/svg+xml;base64,"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(count_of(text, "<img "), 1u);
  EXPECT_EQ(text.find("\n\n\n"), std::string::npos);
  EXPECT_TRUE(text.ends_with("\n") && !text.ends_with("\n\n"));
}

TEST(Document, MayBeEmpty) {
  expect_well_formed(document_html({}));
  EXPECT_EQ(document_markdown({}), "# \n\n\n");
}

}  // namespace
}  // namespace bitnet
