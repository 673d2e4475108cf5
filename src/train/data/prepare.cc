#include "train/data/prepare.h"

#include "base/file.h"
#include "base/parallel_status.h"
#include "base/thread_pool.h"
#include "tokenizer/tokenizer_impl.h"
#include "train/data/conversation.h"

#include <unistd.h>

#include <filesystem>
#include <utility>

namespace bitnet {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunksPerThread = 4;

// A folder under a temporary name, which goes unless it is published.
class TemporaryFolder {
 public:
  static Result<TemporaryFolder> create(const std::string& final_path) {
    std::error_code error;
    if (fs::exists(final_path, error) && !fs::is_empty(final_path, error)) {
      Error taken = invalid_argument("{}: is there already", final_path);
      taken.suggestion = "choose another name, or remove the old dataset first";
      return taken;
    }
    TemporaryFolder folder;
    folder.final_path_ = final_path;
    folder.path_ = final_path + ".tmp-XXXXXX";
    if (::mkdtemp(folder.path_.data()) == nullptr) {
      folder.path_.clear();
      return io_error(final_path, "create a folder beside it");
    }
    fs::permissions(folder.path_, fs::perms(0755), error);
    return folder;
  }
  TemporaryFolder(TemporaryFolder&& other) noexcept
      : path_(std::exchange(other.path_, {})), final_path_(std::move(other.final_path_)) {}
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }
  Status publish() {
    const DiskCalls& disk = system_disk_calls();
    if (disk.rename(path_, final_path_) != 0) return io_error(final_path_, "rename the finished folder to this name");
    path_.clear();
    const std::string parent = directory_of(final_path_);
    if (disk.sync_directory(parent) != 0) return io_error(parent, "sync the directory");
    return ok();
  }

 private:
  TemporaryFolder() = default;
  std::string path_, final_path_;
};

// The shards of one split, begun anew whenever one is full.
class SplitWriter {
 public:
  SplitWriter(std::string folder, int64_t vocab_size, Split split, int64_t shard_tokens)
      : folder_(std::move(folder)), vocab_size_(vocab_size), split_(split), shard_tokens_(uint64_t(shard_tokens)) {}

  Status write(std::span<const int32_t> ids) {
    while (!ids.empty()) {
      if (!shard_) BN_RETURN_IF_ERROR(begin_shard());
      const auto part = ids.first(size_t(std::min<uint64_t>(ids.size(), shard_tokens_ - shard_->n_tokens())));
      BN_RETURN_IF_ERROR(shard_->write(part));
      ids = ids.subspan(part.size());
      if (shard_->n_tokens() == shard_tokens_) BN_RETURN_IF_ERROR(end_shard());
    }
    return ok();
  }
  // In the shard that its first token goes to.
  Status count_document() {
    if (!shard_) BN_RETURN_IF_ERROR(begin_shard());
    shard_->count_document();
    return ok();
  }
  Result<std::vector<DatasetInfo::ShardEntry>> finish() {
    if (shard_) BN_RETURN_IF_ERROR(end_shard());
    return std::move(entries_);
  }

 private:
  std::string file_name() const { return fmt::format("{}-{:05}.tokens", split_name(split_), entries_.size()); }
  Status begin_shard() {
    BN_ASSIGN_OR_RETURN(ShardWriter shard, ShardWriter::create(folder_ + "/" + file_name(), uint64_t(vocab_size_),
                                                               split_, uint32_t(entries_.size())));
    shard_.emplace(std::move(shard));
    return ok();
  }
  Status end_shard() {
    BN_ASSIGN_OR_RETURN(const ShardHeader header, shard_->finish());
    shard_.reset();
    if (header.n_tokens > 0) entries_.push_back({file_name(), header});
    return ok();
  }

  std::string folder_;
  int64_t vocab_size_;
  Split split_;
  uint64_t shard_tokens_;
  std::optional<ShardWriter> shard_;
  std::vector<DatasetInfo::ShardEntry> entries_;
};

// Token ids of chunks of documents.
class ChunkEncoder {
 public:
  static Result<ChunkEncoder> create(const PrepareOptions& options) {
    if (options.tokenizer == "byte") {
      BN_ASSIGN_OR_RETURN(Tokenizer tokenizer, make_tokenizer(byte_vocabulary(), "byte"));
      return ChunkEncoder(std::move(tokenizer), options);
    }
    TokenizerOptions tokenizer_options;
    tokenizer_options.pre = options.pre_tokenizer;
    BN_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::load(options.tokenizer, tokenizer_options));
    return ChunkEncoder(std::move(tokenizer), options);
  }

  const Tokenizer& tokenizer() const { return tokenizer_; }
  bool is_sentencepiece() const { return vocabulary_of(tokenizer_).kind == VocabularyKind::kSentencePieceBpe; }

  // What a shard stores of it.
  Result<std::vector<int32_t>> encode(const TextChunk& chunk) const {
    if (!conversations_) return encode_text(chunk);
    BN_ASSIGN_OR_RETURN(const MarkedTokens tokens, encode_conversation(tokenizer_, chunk.text, chunk.origin));
    std::vector<int32_t> elements(tokens.ids.size());
    for (size_t i = 0; i < elements.size(); ++i) elements[i] = mark_token(tokens.ids[i], tokens.counted[i] != 0);
    return elements;
  }

 private:
  Result<std::vector<int32_t>> encode_text(const TextChunk& chunk) const {
    std::string_view text = chunk.text;
    if (is_sentencepiece() && !(chunk.begins_document && chunk.ends_document)) {
      if (!tokenizer_.impl().model.words_are_separate()) {
        return unsupported(
            "{}: has tokens that reach over several words, so that documents of more than a megabyte "
            "cannot be cut",
            tokenizer_.impl().name);
      }
      // Each text that is encoded gets the space in front that this one has already.
      const bool has_prefix = vocabulary_of(tokenizer_).add_space_prefix && !chunk.begins_document;
      if (has_prefix && text.starts_with(' ')) text.remove_prefix(1);
    }
    EncodeOptions encode_options;
    encode_options.add_bos = false;
    BN_ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer_.encode(text, encode_options));
    if (bos_id_ && chunk.begins_document) ids.insert(ids.begin(), *bos_id_);
    if (eos_id_ && chunk.ends_document) ids.push_back(*eos_id_);
    return ids;
  }

  ChunkEncoder(Tokenizer tokenizer, const PrepareOptions& options)
      : tokenizer_(std::move(tokenizer)), conversations_(options.corpus.conversations) {
    if (options.add_bos && tokenizer_.adds_bos()) bos_id_ = tokenizer_.bos_id();
    if (options.add_eos) eos_id_ = tokenizer_.eos_id();
  }
  Tokenizer tokenizer_;
  bool conversations_;
  std::optional<int32_t> bos_id_, eos_id_;
};

// The next chunks that are encoded together.
Result<std::vector<TextChunk>> next_batch(Corpus& corpus, size_t n_chunks) {
  std::vector<TextChunk> batch;
  size_t n_bytes = 0;
  while (batch.size() < n_chunks * 1024 && n_bytes < n_chunks << 20) {  // documents may be short
    BN_ASSIGN_OR_RETURN(auto chunk, corpus.next());
    if (!chunk) break;
    n_bytes += chunk->text.size();
    batch.push_back(*std::move(chunk));
  }
  return batch;
}

Status check_splits(const PrepareReport& report, const CorpusOptions& corpus) {
  const int64_t n_train = report.info.n_documents(Split::kTrain), n_valid = report.info.n_documents(Split::kValid);
  if (n_train + n_valid == 0) return invalid_input("the input holds no document: all of its text is empty");
  const bool wants_valid = corpus.valid_documents > 0 || corpus.valid_tail > 0;
  if (n_train > 0 && (n_valid > 0 || !wants_valid)) return ok();
  Error error = invalid_input("all {} document(s) fell on the {} side of the split", n_train + n_valid,
                              n_train > 0 ? "training" : "validation");
  error.suggestion =
      corpus.valid_documents > 0 ? "--valid-tail 0.05 takes the last 5% of the text instead" : "give more text";
  return error;
}

}  // namespace

Result<PrepareReport> prepare_dataset(const PrepareOptions& options) {
  if (options.shard_tokens < 1)
    return invalid_argument("shards of {} tokens, expected at least 1", options.shard_tokens);
  BN_ASSIGN_OR_RETURN(const ChunkEncoder encoder, ChunkEncoder::create(options));
  CorpusOptions corpus_options = options.corpus;
  corpus_options.cut_at_newlines = !encoder.is_sentencepiece();
  BN_ASSIGN_OR_RETURN(Corpus corpus, Corpus::open(options.inputs, corpus_options));
  BN_ASSIGN_OR_RETURN(TemporaryFolder folder, TemporaryFolder::create(options.folder));
  PrepareReport report;
  report.n_files = corpus.n_files();
  report.notices = corpus.notices();
  report.info.vocab_size = encoder.tokenizer().vocab_size();
  report.info.tokenizer = encoder.tokenizer().description();
  report.info.marked = options.corpus.conversations;
  const int64_t n_elements = report.info.n_elements();
  SplitWriter writers[] = {{folder.path(), n_elements, Split::kTrain, options.shard_tokens},
                           {folder.path(), n_elements, Split::kValid, options.shard_tokens}};
  ThreadPool pool(options.n_threads);
  for (;;) {
    BN_ASSIGN_OR_RETURN(const auto batch, next_batch(corpus, kChunksPerThread * size_t(options.n_threads)));
    if (batch.empty()) break;
    std::vector<std::vector<int32_t>> ids(batch.size());
    BN_RETURN_IF_ERROR(parallel_status(pool, int64_t(batch.size()), [&](int64_t begin, int64_t end) -> Status {
      for (int64_t i = begin; i < end; ++i) {
        BN_ASSIGN_OR_RETURN(ids[size_t(i)], encoder.encode(batch[size_t(i)]));
      }
      return ok();
    }));
    for (size_t i = 0; i < batch.size(); ++i) {
      SplitWriter& writer = writers[size_t(batch[i].split)];
      report.text_bytes[size_t(batch[i].split)] += batch[i].text.size();
      if (batch[i].begins_document) BN_RETURN_IF_ERROR(writer.count_document());
      BN_RETURN_IF_ERROR(writer.write(ids[i]));
      if (report.info.marked) {
        for (const int32_t element : ids[i]) report.n_counted[size_t(batch[i].split)] += uint64_t(is_counted(element));
      }
    }
    const double done = double(corpus.position_bytes()) / double(std::max<uint64_t>(corpus.size_bytes(), 1));
    if (options.on_progress && !options.on_progress(done)) {
      return make_error(ErrorCode::kInterrupted, "{}: stopped before it was complete; nothing is left of it",
                        options.folder);
    }
  }
  for (const Split split : {Split::kTrain, Split::kValid}) {
    BN_ASSIGN_OR_RETURN(report.info.shards[size_t(split)], writers[size_t(split)].finish());
  }
  BN_RETURN_IF_ERROR(check_splits(report, options.corpus));
  BN_RETURN_IF_ERROR(vocabulary_to_folder(vocabulary_of(encoder.tokenizer()), folder.path()));
  BN_RETURN_IF_ERROR(write_dataset_info(folder.path(), report.info));
  BN_RETURN_IF_ERROR(folder.publish());
  return report;
}

}  // namespace bitnet
