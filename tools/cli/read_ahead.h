// Images of the batches to come, read while the device works on one.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "kernels/check.h"

namespace switchback {

// Reads on threads of its own. What a batch gets depends on neither their number nor their order.
class ReadAhead {
 public:
  struct Step {
    std::vector<int64_t> images;  // empty: there are no more steps
    int64_t epoch = 0;
  };
  struct Batch {
    std::vector<int64_t> images;  // of the step's those that are there: what cannot be read is left out
    std::vector<float> pixels;    // NCHW
  };
  using Read = std::function<void(int64_t image, int64_t epoch, float* to)>;        // by any thread
  using LeaveOut = std::function<void(int64_t image, const Error& why)>;            // by the thread that takes; may throw
  // item: values of an image. next: the steps one after the other, asked for by the thread that takes them.
  ReadAhead(int64_t item, int threads, Read read, LeaveOut leave_out, std::function<Step()> next);
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;
  ~ReadAhead();
  Batch take();  // of the next step

 private:
  struct Reading : Batch {
    int64_t epoch = 0;
    size_t begun = 0, done = 0;               // of the images
    std::vector<std::optional<Error>> wrong;  // why they cannot be read
    std::exception_ptr failed;
  };
  void ask();
  void work();
  const int64_t item_;
  const Read read_;
  const LeaveOut leave_out_;
  const std::function<Step()> next_;
  std::mutex lock_;
  std::condition_variable begin_, end_;
  std::deque<std::unique_ptr<Reading>> readings_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace switchback
