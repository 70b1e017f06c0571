// Which filters answer to an image, and which still do when a part of it is occluded: the mean activation of every
// channel of a layer (Amirli 2021, "Activation Maximization and Visualization of Features of Deep Convolutional Neural
// Networks", sections 4.2 and 4.3, figure 5 and table 1).
#pragma once

#include <span>
#include <vector>

#include "kernels/patch/patch.h"
#include "viz/methods/fill.h"
#include "viz/methods/gradient.h"

namespace switchback {

struct ChannelOptions : RunOptions {
  std::vector<Box> boxes;  // each gives an occluded copy of every image
  Fill fill;
};

// The mean over all positions of every channel, for x [N,C,H,W] and its occluded copies: for each of `nodes` a tensor
// [N,1+B,channels], where copy 0 is the image itself and copy 1 + b the one with boxes[b] filled. Sums are in double
// and in row-major order, so the batch does not change them. A node's value is its own: a convolution's is the one
// before its batch norm and ReLU.
std::vector<Tensor> channel_means(Context& ctx, const Model& model, const Tensor& x, std::span<const int> nodes,
                                  const ChannelOptions& options = {});

// The mean of `count` images from `first` on, [1+B,channels], of means [N,1+B,channels].
Tensor average_means(const Tensor& means, int64_t first, int64_t count);

// The `count` channels (or all, if there are fewer) with the largest means in copy `copy` of means [1+B,channels],
// strongest first, the lower number first among equals.
std::vector<int64_t> top_channels(const Tensor& means, int64_t copy, int64_t count);
// How many channels two such lists have in common, in any order.
int64_t shared_channels(const std::vector<int64_t>& a, const std::vector<int64_t>& b);

// What stands between a node's value and its activation: the batch norm, if there is one, and the ReLU that read a
// convolution, linear layer, batch norm or addition. Empty for other nodes and where no ReLU follows.
std::vector<int> nodes_to_relu(const Network& network, int node);

}  // namespace switchback
