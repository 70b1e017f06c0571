// What `switchback etalon` does with its inputs: batches them, and writes each input's arrays and pictures.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/files/dataset.h"
#include "tools/commands/etalon_figure.h"
#include "tools/cli/inputs.h"
#include "tools/cli/job.h"
#include "tools/cli/resumable.h"
#include "viz/methods/etalon.h"

namespace switchback {

inline constexpr Choice<EtalonAlgorithm> kEtalonAlgorithms[] = {{"single-pass", EtalonAlgorithm::single_pass},
                                                                {"coordinate", EtalonAlgorithm::coordinate}};

struct EtalonFlags : Options {
  EtalonAlgorithm algorithm = EtalonAlgorithm::single_pass;
  std::string limit, load_tape;
  bool product = false, subgraph = false, resume = false, full_maps = false;
};

// What the check of each unit says, as fields of the input's JSON entry.
void add_checks(Json& entry, const EtalonInput& result);

// With several checkpoints: a strip for each input (maps.h).
void run_etalon_strips(Job& job, const EtalonFlags& flags);

class EtalonRun {
 public:
  EtalonRun(Job& job, const EtalonFlags& flags);
  ~EtalonRun();
  void run();  // all inputs, and the report

 private:
  struct Source;  // one INPUT file or data set, with results of its own
  struct Item {
    std::shared_ptr<Source> source;
    int64_t index;
  };
  // What one share has made of its items of a round (ranks) or of the run (--shard).
  struct Made {
    std::vector<EtalonInput> results;
    std::vector<float> maps;  // [items, units, C,H,W]
    void merge(Made&& next);
    template <typename A>
    void fields(A& a) {
      a(results, maps);
    }
  };
  // Where the largest residual was.
  struct Worst {
    double relative = 0, residual = 0;
    std::string where;
    int64_t above = 0;  // etalons above the tolerance
  };

  void add_sources();
  void start(const std::shared_ptr<Source>& source);
  void plan_for(Shape image);
  void take_journal(Source& source);
  void open_files(Source& source);
  bool take_finished(Source& source, const std::string& path, const Json& job);
  Json job_of(const Source& source) const;
  void push(const std::shared_ptr<Source>& source, int64_t index, const float* pixels);
  void flush();
  void make(int64_t first, int64_t last, const Etalons::Sink& sink, std::vector<EtalonInput>& results);
  Made make_share(int64_t first, int64_t last);
  void take_maps(int64_t item, int64_t unit, int64_t count, const float* maps);
  void write(Source& source, int64_t index, int64_t unit, int64_t count, const float* maps);
  void item_done(Source& source, int64_t index, const EtalonInput& result, bool resumed);
  void keep_row(Source& source, int64_t index, const EtalonInput& result);
  void add_entry(Source& source, int64_t index, const EtalonInput& result);
  void finish(Source& source);
  Json add_figure(const ResultOf& of, const EtalonFigure& figure);  // the entries of its files
  void draw_subgraph(Source& source, int64_t index, const EtalonInput& result);
  void finish_all();
  void print_summary() const;

  Job& job_;
  const EtalonFlags& flags_;
  EtalonOptions options_;
  Output output_;
  Inputs inputs_;
  std::vector<std::shared_ptr<Source>> sources_;
  int64_t items_ = 0, items_done_ = 0, items_resumed_ = 0, items_finished_ = 0;
  std::string name_;  // of what is drawn, in titles
  Shape image_;
  std::optional<Etalons> etalons_;
  std::vector<float> x_;  // of the items in the queue
  std::vector<Item> queue_;
  std::vector<std::vector<std::vector<float>>> shown_;  // of each item in the queue: the maps that its figure shows
  std::vector<float> product_;
  std::optional<EtalonFigure> sheet_;  // all inputs; none where there is one source
  std::vector<std::string> headings_;
  Report report_;
  ItemLines lines_;
  Worst worst_;
  int64_t batch_ = 0, seeds_ = 0;
  int64_t round_ = 1;      // items that run together: a batch, of ranks one for each
  int64_t pushed_ = 0;     // items so far
  Made made_;              // of this share, or of all that are merged
  size_t taken_ = 0;       // of the merged ones
};

}  // namespace switchback
