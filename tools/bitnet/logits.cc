// bitnet logits: what the model computes for each position, to look at or to compare bit for bit.
#include "format/safetensors.h"
#include "hash.h"
#include "interrupt.h"
#include "options.h"
#include "output.h"
#include "progress.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <memory>
#include <numeric>

namespace bitnet::cli {
namespace {

struct LogitsFlags {
  ModelFlags model;
  SessionFlags session;
  TextFlags text;
  std::string ids;
  std::string output;
  bool no_bos = false;
  bool special = false;
  bool no_act_quant = false;
};

constexpr size_t kTop = 5;

// Ids of the largest logits, the lower id first on ties.
std::vector<int32_t> top_ids(std::span<const float> logits) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const size_t n = std::min(kTop, order.size());
  std::partial_sort(order.begin(), order.begin() + int64_t(n), order.end(), [&](int32_t a, int32_t b) {
    return logits[size_t(a)] != logits[size_t(b)] ? logits[size_t(a)] > logits[size_t(b)] : a < b;
  });
  order.resize(n);
  return order;
}

// Where the rows go as they are computed: a file, or their best tokens for people and JSON.
class Rows {
 public:
  Rows(const Model& model, const std::vector<int32_t>& ids) : model_(model), ids_(ids) {}

  Status open(const std::string& path) {
    BN_ASSIGN_OR_RETURN(SafetensorsWriter created, SafetensorsWriter::create(path));
    writer_ = std::make_unique<SafetensorsWriter>(std::move(created));
    BN_RETURN_IF_ERROR(writer_->add_metadata("format", "pt"));
    BN_RETURN_IF_ERROR(writer_->add_tensor("logits", DType::kF32, {int64_t(ids_.size()), model_.info().vocab_size}));
    BN_RETURN_IF_ERROR(writer_->add_tensor("ids", DType::kI32, {int64_t(ids_.size())}));
    return writer_->begin_data();
  }

  Status add(int64_t position, std::span<const float> logits) {
    hash_.add(logits);
    if (writer_) return writer_->write_data(std::as_bytes(logits));
    OrderedJson best = OrderedJson::array();
    const int32_t id = ids_[size_t(position)];
    std::string line = fmt::format("{:5}  {:>7} {:<14}", position, id, piece(id));
    for (const int32_t top : top_ids(logits)) {
      best.push_back({{"id", top}, {"logit", logits[size_t(top)]}});
      line += fmt::format("  {} {} {:.4f}", top, piece(top), logits[size_t(top)]);
    }
    text_ += line + "\n";
    top_.push_back(std::move(best));
    return ok();
  }

  Status finish() {
    if (!writer_) return ok();
    BN_RETURN_IF_ERROR(writer_->write_data(std::as_bytes(std::span(ids_))));
    return writer_->finish();
  }

  const std::string& text() const { return text_; }
  OrderedJson json() const {
    OrderedJson document = {{"n_tokens", ids_.size()},
                            {"vocab_size", model_.info().vocab_size},
                            {"hash", hash_.hex()},
                            {"kernels", model_.info().kernels},
                            {"ids", ids_}};
    if (!writer_) document["top"] = top_;
    return document;
  }
  std::string hash() const { return hash_.hex(); }

 private:
  std::string piece(int32_t id) const {
    const Tokenizer* const tokenizer = model_.tokenizer();
    return tokenizer == nullptr ? "" : fmt::format("\"{}\"", escaped(tokenizer->token_bytes(id)));
  }

  const Model& model_;
  const std::vector<int32_t>& ids_;
  LogitsHash hash_;
  std::unique_ptr<SafetensorsWriter> writer_;
  std::string text_;
  OrderedJson top_ = OrderedJson::array();
};

Result<std::vector<int32_t>> input_ids(const LogitsFlags& flags, const Model& model) {
  if (!flags.ids.empty()) return parse_ids(flags.ids, "--ids");
  BN_ASSIGN_OR_RETURN(const Tokenizer* const tokenizer, tokenizer_of(model));
  BN_ASSIGN_OR_RETURN(const std::string text,
                      read_text(flags.text, "text", "bitnet logits -m " + flags.model.model + " --ids 1,2,3"));
  EncodeOptions options;
  options.add_bos = !flags.no_bos;
  options.parse_special = flags.special;
  return tokenizer->encode(text, options);
}

Result<int> run(const Invocation& invocation, const LogitsFlags& flags) {
  LoadOptions load;
  load.act_quant = !flags.no_act_quant;
  BN_ASSIGN_OR_RETURN(const Model model, load_model(invocation, flags.model, Logits::kAll, load));
  BN_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, input_ids(flags, model));
  if (ids.empty()) return invalid_argument("There is no token to compute logits for: the text is empty.");

  SessionOptions options = session_options(flags.session, flags.model.n_threads);
  // No larger than needed, so that a long training context costs no memory here.
  if (options.n_ctx == 0) options.n_ctx = std::max<int64_t>(1, std::min(int64_t(ids.size()), model.info().n_ctx_train));
  BN_ASSIGN_OR_RETURN(Session session, model.new_session(options));

  Rows rows(model, ids);
  if (!flags.output.empty()) BN_RETURN_IF_ERROR(rows.open(flags.output));
  Status written = ok();
  const Status computed = [&] {
    const InterruptScope scope(&session);
    Progress progress("Computing logits");
    return session.append(ids, [&](int64_t position, std::span<const float> logits) {
      written = rows.add(position, logits);
      progress.update(double(position + 1) / double(ids.size()));
      return bool(written) && !interrupted();
    });
  }();
  if (interrupted()) return interrupted_error();
  if (!written) return written.error();
  BN_RETURN_IF_ERROR(computed);
  BN_RETURN_IF_ERROR(rows.finish());

  if (invocation.json) {
    OrderedJson document = rows.json();
    if (!flags.output.empty()) document["output"] = flags.output;
    print_json(document);
  } else if (flags.output.empty()) {
    print("  pos       id token           best next tokens: id, text, logit\n" + rows.text());
    print_report(fmt::format("hash of all logits {}", rows.hash()));
  } else {
    print_report(
        fmt::format("{}: logits [{}, {}], hash {}", flags.output, ids.size(), model.info().vocab_size, rows.hash()));
  }
  return 0;
}

}  // namespace

void add_logits(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<LogitsFlags>();
  flags->session.kv = "f32";
  CLI::App* command = app.add_subcommand("logits", "Compute the logits of every position");
  add_model_flags(*command, flags->model);
  add_text_flags(*command, flags->text, "Text to feed");
  command->add_option("--ids", flags->ids, "Token ids to feed, 1,2,3")->excludes("--prompt")->excludes("--file");
  command->add_option("-o,--output", flags->output,
                      "Write a safetensors file: logits float32 [n_tokens, vocab_size], ids int32 [n_tokens]");
  command->add_flag("--no-bos", flags->no_bos, "Put no begin-of-text token in front");
  command->add_flag("--special", flags->special, "Read special tokens in the text as such");
  command->add_flag("--no-act-quant", flags->no_act_quant,
                    "Do not round activations to 8 bits: tells rounding from errors");
  add_session_flags(*command, flags->session);
  define(*command, invocation, "bitnet logits -m models/storyteller-29m.gguf --ids 0,49,1330 -o logits.safetensors",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
