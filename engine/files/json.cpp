#include "engine/files/json.h"

namespace switchback {

nlohmann::json parse_json(std::string_view text, const nlohmann::json::parser_callback_t& keep, bool throws) {
  return nlohmann::json::parse(text, keep, throws);
}

}  // namespace switchback
