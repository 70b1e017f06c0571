// The homes of all layers on the list.
#pragma once

#include "engine/layers/activation.h"
#include "engine/layers/arithmetic.h"
#include "engine/layers/attention.h"
#include "engine/layers/conv.h"
#include "engine/layers/linear.h"
#include "engine/layers/movement.h"
#include "engine/layers/norm.h"
#include "engine/layers/pool.h"
#include "engine/layers/tokens.h"

namespace switchback {

template <typename... Ls>
consteval bool have_homes(std::variant<Ls...>*) {
  static_assert((HasHome<Ls> && ...), "a layer lacks something that home.h wants of its home");
  return true;
}
static_assert(have_homes(static_cast<Layer*>(nullptr)));

}  // namespace switchback
