// The subcommands, as one table. To add one: its file tools/cmd_NAME.cpp and its row here; help, the list of commands
// in error messages and parsing follow from the row.
#pragma once

#include <functional>
#include <span>

namespace CLI {
class App;
}

namespace switchback {

// Adds the command's options to `app` and returns what runs it once they are parsed.
using Setup = std::function<void()> (*)(CLI::App& app);

struct Command {
  const char* name;
  const char* about;  // one line
  Setup setup;
};

std::function<void()> setup_classify(CLI::App& app);
std::function<void()> setup_evaluate(CLI::App& app);
std::function<void()> setup_gradient(CLI::App& app);
std::function<void()> setup_smoothgrad(CLI::App& app);
std::function<void()> setup_integrated(CLI::App& app);
std::function<void()> setup_filters(CLI::App& app);
std::function<void()> setup_activations(CLI::App& app);
std::function<void()> setup_info(CLI::App& app);
std::function<void()> setup_models(CLI::App& app);
std::function<void()> setup_bench(CLI::App& app);

inline constexpr Command kCommands[] = {
    {"classify", "the most probable classes of each image", setup_classify},
    {"evaluate", "top-1, top-5 and loss over a labelled data set, confusion table, worst cases", setup_evaluate},
    {"gradient", "gradient, deconv and guided-backpropagation maps", setup_gradient},
    {"smoothgrad", "mean, mean square or variance of the gradient over noisy copies of the image", setup_smoothgrad},
    {"integrated", "integrated gradients between a baseline and the image", setup_integrated},
    {"filters", "the weights of a convolution as a picture grid", setup_filters},
    {"activations", "the maps of a layer as a picture grid", setup_activations},
    {"info", "the layers of a model; without --model, this machine and build", setup_info},
    {"models", "the built-in architectures, and which weights are at hand", setup_models},
    {"bench", "throughput of a method or of one op", setup_bench},
};

}  // namespace switchback
