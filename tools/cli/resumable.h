// An array that is written row by row over a long time, so that an interrupted run can be continued: PATH.partial holds
// the rows, PATH.journal what the run says of them, one JSON document a line. PATH itself appears when all is done.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace switchback {

// "weights, target": what two jobs differ in.
std::string differences(const nlohmann::ordered_json& a, const nlohmann::ordered_json& b);

class ResumableArray {
 public:
  using Json = nlohmann::ordered_json;

  // dims[0] rows. With `resume`, rows that an earlier run finished are kept; throws where they belong to another job than
  // `job`. Without, whatever lies there is begun anew.
  ResumableArray(std::string path, const Dims& dims, const Json& job, bool resume);
  ResumableArray(const ResumableArray&) = delete;
  ResumableArray& operator=(const ResumableArray&) = delete;
  // An error before finish() removes what was written, unless it was to be resumed. (A signal ends the process without
  // coming here: then it stays.)
  ~ResumableArray();

  const std::vector<Json>& notes() const { return notes_; }  // of the rows that are done already, from row 0 on
  void write(int64_t row, int64_t offset, std::span<const float> values);  // offset: in values, from the row's first
  void read(int64_t row, std::span<float> values) const;                   // a whole row
  void row_done(const Json& note);  // the next row is complete
  void finish();                    // all rows are: the array appears under its name
  const std::string& path() const { return path_; }

 private:
  void begin(const Json& job);
  bool load_journal(const Json& job);
  void sync();
  void close_files() noexcept;
  std::string partial() const { return path_ + ".partial"; }
  std::string journal() const { return path_ + ".journal"; }
  std::string path_;
  Dims dims_;
  int64_t row_bytes_ = 0, data_begin_ = 0, rows_done_ = 0;
  bool resume_;
  bool finished_ = false;
  int array_ = -1, journal_ = -1;
  std::string pending_;  // lines of rows whose values may not have reached the disk yet
  std::chrono::steady_clock::time_point last_sync_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::duration sync_every_ = std::chrono::milliseconds(50);
  std::vector<Json> notes_;
};

}  // namespace switchback
