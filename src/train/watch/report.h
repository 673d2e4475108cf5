#pragma once

#include "base/result.h"
#include "train/watch/run_history.h"

#include <string>

namespace bitnet {

// One page of HTML, with nothing in it that would be fetched: what a run did, as plots, numbers and samples of text, in
// light and dark. `title` is plain text; `config` is the run's configuration file, or empty.
std::string run_report_html(const RunHistory& history, const std::string& title, const std::string& config);

}  // namespace bitnet
