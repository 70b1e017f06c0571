// Running the real `switchback` binary from tests.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace switchback::test {

struct Outcome {
  int code = -1;     // exit code; 128 + N where signal N ended it
  std::string out;   // stdout
  std::string err;   // stderr
  std::string line;  // the command line, to repeat it

  nlohmann::json json() const;  // stdout as one JSON document; null (and a failure) where it is none
};

struct RunLimits {
  long long file_bytes = -1;        // RLIMIT_FSIZE of the child
  const char* stdout_to = nullptr;  // instead of capturing it
  int interrupt_after_ms = -1;      // sends SIGINT
};

Outcome run_switchback(const std::vector<std::string>& arguments, const RunLimits& limits = {});

}  // namespace switchback::test
