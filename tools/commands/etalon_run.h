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
  // Where the largest residual was.
  struct Worst {
    double relative = 0, residual = 0;
    std::string where;
    int64_t above = 0;  // etalons above the tolerance
  };

  void add_sources();
  void start(const std::shared_ptr<Source>& source);
  void plan_for(Shape image);
  void open_files(Source& source);
  bool take_finished(Source& source, const std::string& path, const Json& job);
  Json job_of(const Source& source) const;
  void push(const std::shared_ptr<Source>& source, int64_t index, const float* pixels);
  void flush();
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
};

}  // namespace switchback
