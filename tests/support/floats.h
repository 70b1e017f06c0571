// A plain array of floats on a device under test, which begins as what it is given.
#pragma once

#include <vector>

#include "tests/support/harness.h"

namespace switchback::test {

struct Sums {
  Guarded& memory;
  Sums(OpRun& run, const std::vector<double>& start) : memory(run.bytes(start.size() * sizeof(float), kPoison)) {
    const std::vector<float> values(start.begin(), start.end());
    memory.write(values.data(), memory.size());
  }
  float* data() const { return memory.as<float>(); }
  Nchw read(Shape shape) const {
    Nchw out(shape);
    const std::vector<float> values = memory.read_as<float>();
    out.v.assign(values.begin(), values.end());
    return out;
  }
};

}  // namespace switchback::test
