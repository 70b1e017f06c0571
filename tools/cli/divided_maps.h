// The runs of a method over the chunks of a command's inputs, where the command is divided (shares.h): each share makes the
// maps of its images, or, where there are fewer images than shares and the method has pieces (MapMethod::pieces), its
// pieces of each image's map. Another pass over the inputs then has all of them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/cli/maps.h"

namespace switchback {

class DividedMaps {
 public:
  DividedMaps(Job& job, const MapMethod& method, Output& output, Inputs& inputs);
  // This share's maps, brought together with the others'. most: as Inputs::for_each_chunk has it. False: another run goes on.
  bool gather(const std::function<int64_t(Shape)>& most);
  // method.run() of the next chunk (and checkpoint), with the job's network.
  Maps run(const Chunk& chunk, const Progress& progress);

 private:
  struct Run {  // of a chunk's images, or of one image's pieces
    Dims dims;  // of the maps
    std::vector<float> values;
    std::vector<Explained> explained;
    std::vector<std::string> kept;
    PieceValues pieces;
    int64_t batch = 0;
    void add(const Maps& maps, std::string bytes);
    void merge(Run&& next);
    template <typename A>
    void fields(A& a) {
      a(dims, values, explained, kept, pieces, batch);
    }
  };
  struct State {
    std::vector<Run> runs;
    void merge(State&& next);
    template <typename A>
    void fields(A& a) {
      a(runs);
    }
  };
  void make(const Chunk& chunk, int64_t first, const Progress& progress);  // first: of all items
  void add_run(Run& run, const Chunk& chunk, int64_t first, int64_t count, const Progress& progress);

  Job& job_;
  const MapMethod& method_;
  Output& output_;
  Inputs& inputs_;
  int64_t items_;
  bool by_pieces_;
  State state_;
  size_t next_ = 0;  // of the runs
};

}  // namespace switchback
