// Tests of engine and viz that run on every device: the fixture has `ctx`, and skips where its device cannot run.
//
//   class Engine : public OnDevice {};
//   TEST_P(Engine, Name) { ... ctx ... }
//   SWITCHBACK_ON_ALL_DEVICES(Engine);
#pragma once

#include "tests/support/harness.h"

namespace switchback::test {

class OnDevice : public testing::TestWithParam<const DeviceRow*> {
 protected:
  OnDevice() : device(*GetParam()), ctx(device.why_not().empty() ? device.open() : nullptr) {}
  void SetUp() override {
    const std::string reason = device.why_not();
    if (reason.empty()) return;
    const char* required = device.require_variable ? std::getenv(device.require_variable) : nullptr;
    if (required && std::string(required) == "1") FAIL() << "required, but cannot run: " << reason;
    GTEST_SKIP() << reason;
  }
  const DeviceRow& device;
  Context ctx;
};

inline std::vector<const DeviceRow*> all_devices() {
  std::vector<const DeviceRow*> all;
  for (const DeviceRow& row : devices()) all.push_back(&row);
  return all;
}

#define SWITCHBACK_ON_ALL_DEVICES(Suite)                                            \
  INSTANTIATE_TEST_SUITE_P(On, Suite, testing::ValuesIn(test::all_devices()),       \
                           [](const auto& info) { return std::string(info.param->name); })

}  // namespace switchback::test
