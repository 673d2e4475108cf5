// bitnet devices: what this machine can run models on.
#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "output.h"

#include <CLI/CLI.hpp>

namespace bitnet::cli {
namespace {

Result<int> run(const Invocation& invocation) {
  BN_ASSIGN_OR_RETURN(const std::vector<DeviceInfo> devices, list_devices());
  if (invocation.json) {
    OrderedJson list = OrderedJson::array();
    for (const DeviceInfo& device : devices) {
      list.push_back({{"device", device.device},
                      {"description", device.description},
                      {"kernels", device.kernels},
                      {"chosen", device.chosen}});
    }
    print_json({{"devices", list}, {"threads", available_cpus()}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"device", "kernels", "usable", "machine"}};
  for (const DeviceInfo& device : devices) {
    rows.push_back(
        {device.device, device.chosen, fmt::format("{}", fmt::join(device.kernels, " ")), device.description});
  }
  print(table(rows));
  print_report("'kernels' is what runs; BITNET_CPU_ISA forces another of the usable ones.");
  return 0;
}

}  // namespace

void add_devices(CLI::App& app, Invocation& invocation) {
  CLI::App* command = app.add_subcommand("devices", "Show what this machine has and which kernels run on it");
  define(*command, invocation, "bitnet devices", run);
}

}  // namespace bitnet::cli
