// Reading JSON. nlohmann's parser is compiled in json.cpp alone: seconds for each file that has its own.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace switchback {

// As nlohmann::json::parse: `keep` is asked about every value, and bad text throws nlohmann::json::exception or, where
// that is not wanted, gives a discarded value.
nlohmann::json parse_json(std::string_view text, const nlohmann::json::parser_callback_t& keep = nullptr,
                          bool throws = true);

}  // namespace switchback
