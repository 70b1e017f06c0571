// A run over a data set that is divided: among the ranks of `mpirun -n 8 switchback …`, or among runs with --shard I/N, whose
// parts `switchback merge` joins. Each works on its share of the images; what it has kept then is put together in the order
// of the shares, by rank 0 or by `merge`, and one run goes on with all. A command takes part so:
//
//   const auto [first, last] = shares().of(images);   // all of them where the run is not divided
//   State state = …of these images…;
//   if (!gather(job, output, stem, dataset_json(data, images), state)) return;   // another one goes on
//
// State has `fields` (viz/methods/state_bytes.h) and `void merge(State&& next)`, of the images behind its own. Sums must not
// depend on how images are divided: whole counts do not, and viz/methods/ordered_sum.h has others that do not.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/files/dataset.h"
#include "tools/cli/job.h"
#include "viz/methods/state_bytes.h"

namespace switchback {

// What begins a part's file: one line of JSON, behind which the state follows.
struct PartHeader {
  std::string path;
  Json about;  // all that it says
  int index() const { return about.at("shard").at(0); }
  int count() const { return about.at("shard").at(1); }
};

class Shares {
 public:
  bool divided() const { return how_ != How::alone; }
  bool ranks() const { return how_ == How::ranks; }
  bool shard() const { return how_ == How::shard; }
  bool all_given() const { return how_ == How::parts; }  // nothing is left to do for this run's own share
  bool later_rank() const { return ranks() && index_ > 0; }  // not the one that writes and prints
  int index() const { return index_; }
  int count() const { return count_; }
  int local_index() const { return local_index_; }  // of a rank, among those of this machine
  int local_count() const { return local_count_; }
  // Its share of n items, [first, last): the same number for each, or one more.
  std::pair<int64_t, int64_t> of(int64_t n) const;

  // How the run is divided; each once, before a command runs.
  void become_rank();                             // where MPI started this process; else nothing
  void become_shard(const std::string& text);     // "2/8"
  void become_parts(std::vector<PartHeader> parts);
  void wait_for_first() const;  // a later rank gives rank 0 the time to end all
  // The end of a rank: of all of them, where `code` is not 0.
  void finish(int code);

  // What rank 0 says, where there are ranks: so that all agree.
  int64_t agreed(int64_t value) const;
  // One of several rounds among ranks, the last of which is gather(): a later rank hands over its bytes; rank 0 calls `take`
  // with those of the others, in order.
  void round(const std::string& bytes, const std::function<void(std::string_view)>& take) const;

  // gather() without types: hands over this share's bytes, and calls `take` with those of the others, in order.
  bool exchange(Job& job, Output& output, const std::string& stem, const Json& about, const std::string& bytes,
                const std::function<void(std::string_view)>& take);

 private:
  enum class How { alone, ranks, shard, parts };
  void write_part(Job& job, Output& output, const std::string& stem, const Json& about, const std::string& bytes) const;
  How how_ = How::alone;
  bool gathered_ = false;
  int index_ = 0, count_ = 1, local_index_ = 0, local_count_ = 1;
  std::vector<PartHeader> parts_;
};

Shares& shares();  // of this process

// --shard I/N; commands that have it can also run on several ranks.
void add_shard(CLI::App& app, Options& o);

// What the data set is, so that parts of different runs are told apart; null where the run is not divided.
Json dataset_json(const Dataset& data, int64_t images);

// Throws where of a run's images none was read.
void require_read(int64_t read, int64_t images, const std::string& path);

// Brings all shares' states together, with what could not be read. False: this run is done, another one goes on.
template <typename State>
bool gather(Job& job, Output& output, const std::string& stem, const Json& about, State& state) {
  if (!shares().divided()) return true;
  return shares().exchange(job, output, stem, about, state_bytes(job.failed, state), [&](std::string_view bytes) {
    State next{};
    decltype(job.failed) failed;
    StateReader read(bytes);
    read(failed, next);
    read.end();
    state.merge(std::move(next));
    for (const auto& f : failed)
      if (std::ranges::find(job.failed, f) == job.failed.end()) job.failed.push_back(f);
  });
}

PartHeader read_part_header(const std::string& path);

}  // namespace switchback
