// errors: what a failure says to people and to programs, and what to do about it.
#include <bitnet/bitnet.h>

#include <cstdio>

int main() {
  // A file that is not there: an error of the input, as a value.
  auto model = bitnet::Model::load("models/no-such-model.gguf");
  if (model) return 1;
  bitnet::Error& error = model.error();
  error.add_context("while starting the example");
  std::printf("%s", bitnet::to_text(error).c_str());
  std::printf("%s\n", bitnet::to_json(error).c_str());

  switch (bitnet::severity(error.code)) {
    case bitnet::Severity::kNotice: return 0;  // stopped because somebody asked for it
    case bitnet::Severity::kFatal: return 1;   // a bug of the library: start anew and report it
    case bitnet::Severity::kError: break;      // this call failed, the next may not
  }
  // `transient`: the library has tried several times already; a caller with more patience may try later.
  if (error.transient) std::printf("it may work in a minute\n");

  // Memory: by default an error that says what would fit; with min_n_ctx a smaller session instead.
  bitnet::SessionOptions options;
  options.n_ctx = 4096;
  options.min_n_ctx = 512;
  std::printf("sessions may have %lld to %lld positions\n", static_cast<long long>(options.min_n_ctx),
              static_cast<long long>(options.n_ctx));
  return error.code == bitnet::ErrorCode::kInvalidInput ? 0 : 1;
}
