// Neighbours, principal components, k-means and t-SNE, against plain sums over all pairs; and the command.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <random>

#include "engine/files/npy.h"
#include "tests/support/cli_run.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/kmeans.h"
#include "viz/methods/pca.h"
#include "viz/methods/tsne.h"

namespace switchback::test {
namespace {

using nlohmann::json;

// Blobs around `groups` centres, point i in blob i % groups.
std::vector<float> blobs(int64_t n, int64_t d, int64_t groups, float apart) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> centres(size_t(groups * d)), points;
  for (float& c : centres) c = apart * normal(random);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < d; ++k) points.push_back(centres[size_t(i % groups * d + k)] + normal(random));
  std::vector<double> mean(size_t(d), 0.);
  for (size_t e = 0; e < points.size(); ++e) mean[e % size_t(d)] += points[e] / double(n);
  for (size_t e = 0; e < points.size(); ++e) points[e] -= float(mean[e % size_t(d)]);
  return points;
}

double plain_distance(const float* a, const float* b, int64_t d) {
  double sum = 0;
  for (int64_t k = 0; k < d; ++k) sum += std::pow(double(a[k]) - b[k], 2);
  return sum;
}

// All others in the order of their distances.
std::vector<std::pair<double, int64_t>> ranked(PointSet points, int64_t i) {
  std::vector<std::pair<double, int64_t>> all;
  for (int64_t j = 0; j < points.n; ++j)
    if (j != i) all.emplace_back(plain_distance(points.row(i), points.row(j), points.d), j);
  std::sort(all.begin(), all.end());
  return all;
}

class VizEmbed : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(VizEmbed);

TEST_P(VizEmbed, NeighboursAreThoseOfAllPairs) {
  const int64_t n = 300, d = 21, k = 9;
  std::vector<float> values = blobs(n, d, 4, 2);
  std::copy_n(values.begin() + 5 * d, d, values.begin() + 290 * d);  // duplicates
  std::copy_n(values.begin() + 5 * d, d, values.begin() + 17 * d);
  const PointSet points{values.data(), n, d};
  const Neighbours near = nearest_neighbours(ctx, points, k);
  for (int64_t i = 0; i < n; ++i) {
    const auto want = ranked(points, i);
    for (int64_t r = 0; r < k; ++r) {
      const double got = plain_distance(points.row(i), points.row(near.index[size_t(i * k + r)]), d);
      EXPECT_NEAR(got, want[size_t(r)].first, 1e-4) << i << " " << r;
      EXPECT_NEAR(near.squared[size_t(i * k + r)], got, 1e-4);
      EXPECT_NE(near.index[size_t(i * k + r)], i);
    }
  }
  EXPECT_EQ(near.index[size_t(5 * k)], 17) << "of equal ones the first";
  EXPECT_EQ(near.index[size_t(5 * k + 1)], 290);
}

TEST_P(VizEmbed, TrustworthinessIsItsDefinition) {
  const int64_t n = 90, d = 12, k = 4;
  const std::vector<float> values = blobs(n, d, 3, 1);
  std::vector<float> flat;
  for (int64_t i = 0; i < n; ++i) flat.push_back(values[size_t(i * d)]), flat.push_back(values[size_t(i * d + 1)]);
  const PointSet points{values.data(), n, d}, embedding{flat.data(), n, 2};
  double penalty = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto near = ranked(embedding, i), truth = ranked(points, i);
    for (int64_t r = 0; r < k; ++r)
      for (int64_t t = k; t < n - 1; ++t)
        if (truth[size_t(t)].second == near[size_t(r)].second) penalty += double(t + 1 - k);
  }
  EXPECT_NEAR(trustworthiness(ctx, points, embedding, k), 1 - 2 * penalty / double(n * k * (2 * n - 3 * k - 1)), 1e-3);
  EXPECT_EQ(trustworthiness(ctx, points, points, k), 1);
}

// Rows of known components: orthonormal directions, scores without correlation.
TEST(Pca, FindsTheComponentsThatRowsAreMadeOf) {
  const int64_t n = 400, d = 150, rank = 40;
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  const auto orthonormal = [&](int64_t rows, bool centred) {
    std::vector<std::vector<double>> columns;
    for (int64_t c = 0; c < rank; ++c) {
      std::vector<double> v(size_t(rows), 0.);
      for (double& x : v) x = normal(random);
      for (int round = 0; round < 2; ++round) {
        const double mean = centred ? std::accumulate(v.begin(), v.end(), 0.) / double(rows) : 0;
        for (double& x : v) x -= mean;
        for (const auto& other : columns) {
          const double along = std::inner_product(v.begin(), v.end(), other.begin(), 0.);
          for (size_t e = 0; e < v.size(); ++e) v[e] -= along * other[e];
        }
      }
      const double norm = std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.));
      for (double& x : v) x /= norm;
      columns.push_back(v);
    }
    return columns;
  };
  const auto left = orthonormal(n, true), right = orthonormal(d, false);
  std::vector<float> rows(size_t(n * d));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t e = 0; e < d; ++e) {
      double sum = 3;  // the mean
      for (int64_t c = 0; c < rank; ++c)
        sum += 100 * std::pow(0.93, double(c)) * left[size_t(c)][size_t(i)] * right[size_t(c)][size_t(e)];
      rows[size_t(i * d + e)] = float(sum);
    }
  Context one, two;
  one.threads = 1, two.threads = 2;
  const int64_t k = 5;
  const Components got = principal_components(one, n, d, k, 0, rows_in_memory(rows.data(), n, d));
  ASSERT_EQ(got.k, k);
  for (int64_t c = 0; c < k; ++c) {
    double cosine = 0;
    for (int64_t e = 0; e < d; ++e) cosine += double(got.components[size_t(c * d + e)]) * right[size_t(c)][size_t(e)];
    double rest = 0;
    for (int64_t e = 0; e < d; ++e)
      rest += std::pow(double(got.components[size_t(c * d + e)]) - cosine * right[size_t(c)][size_t(e)], 2);
    EXPECT_LT(std::sqrt(rest), 1e-4) << "component " << c;
    EXPECT_NEAR(got.variances[size_t(c)], 1e4 * std::pow(0.93, 2. * double(c)) / double(n - 1), 1e-3);
    for (int64_t i = 0; i < n; ++i)
      EXPECT_NEAR(std::abs(got.scores[size_t(i * k + c)]), std::abs(100 * std::pow(0.93, double(c)) * left[size_t(c)][size_t(i)]), 1e-2);
  }
  EXPECT_LT(got.change, 1e-4);
  // Other threads and pieces leave the same bits.
  const Components again = principal_components(two, n, d, k, 0, [&](const auto& take) {
    for (int64_t i = 0; i < n; i += 7) take(rows.data() + i * d, std::min<int64_t>(7, n - i));
  });
  EXPECT_EQ(again.components, got.components);
  EXPECT_EQ(again.scores, got.scores);
}

TEST(Pca, FewerDimensionsThanAskedFor) {
  Context ctx;
  std::vector<float> line, constant(40, 2.f);
  for (int i = 0; i < 10; ++i)
    for (int e = 0; e < 4; ++e) line.push_back(float(i * (e + 1)));
  EXPECT_EQ(principal_components(ctx, 10, 4, 3, 0, rows_in_memory(line.data(), 10, 4)).k, 1);
  EXPECT_EQ(principal_components(ctx, 10, 4, 2, 0, rows_in_memory(constant.data(), 10, 4)).k, 0);
  // Three points of many values: all variance lies in two components.
  const std::vector<float> wide = blobs(3, 500, 3, 1);
  const Components few = principal_components(ctx, 3, 500, 2, 0, rows_in_memory(wide.data(), 3, 500));
  EXPECT_NEAR(few.variances[0] + few.variances[1], few.total, 1e-4 * few.total);
}

TEST(KMeans, FindsBlobs) {
  const int64_t n = 400, d = 10, groups = 5;
  const std::vector<float> values = blobs(n, d, groups, 6);
  std::vector<double> means(size_t(groups * d), 0.);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t e = 0; e < d; ++e) means[size_t(i % groups * d + e)] += values[size_t(i * d + e)] / double(n / groups);
  double inertia = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t e = 0; e < d; ++e) inertia += std::pow(values[size_t(i * d + e)] - means[size_t(i % groups * d + e)], 2);
  Context one, two;
  one.threads = 1, two.threads = 2;
  const Clusters got = k_means(one, {values.data(), n, d}, groups, 3, 0), again = k_means(two, {values.data(), n, d}, groups, 3, 0);
  EXPECT_NEAR(got.inertia, inertia, 1e-5 * inertia);
  for (int64_t i = groups; i < n; ++i) EXPECT_EQ(got.labels[size_t(i)], got.labels[size_t(i % groups)]);
  EXPECT_EQ(got.labels, again.labels);
  EXPECT_EQ(got.centres, again.centres);
  const Clusters all = k_means(one, {values.data(), 6, d}, 6, 1, 0);
  EXPECT_NEAR(all.inertia, 0, 1e-6) << "as many as points";
  const std::vector<float> equal(30, 1.f);
  EXPECT_EQ(k_means(one, {equal.data(), 10, 3}, 4, 2, 0).inertia, 0) << "duplicates alone";
}

TEST(Tsne, TheGridsForcesAreThoseOfAllPairs) {
  Context ctx;
  std::mt19937 random(5);
  for (const float width : {0.01f, 3.f, 40.f}) {
    const int64_t n = 700;
    std::normal_distribution<float> normal(0, width);
    std::vector<float> places(size_t(2 * n)), pairs(places.size()), grid(places.size());
    for (float& p : places) p = normal(random);
    const double want = tsne_repulsion(ctx, places.data(), n, 2, TsneOptions::Repulsion::pairs, pairs.data());
    const double got = tsne_repulsion(ctx, places.data(), n, 2, TsneOptions::Repulsion::grid, grid.data());
    double z = 0, error = 0, norm = 0;
    for (int64_t i = 0; i < n; ++i) {
      double force[2] = {0, 0};
      for (int64_t j = 0; j < n; ++j) {
        if (j == i) continue;
        const double q = 1 / (1 + plain_distance(places.data() + 2 * i, places.data() + 2 * j, 2));
        z += q;
        for (int c = 0; c < 2; ++c) force[c] += q * q * (double(places[size_t(2 * i + c)]) - places[size_t(2 * j + c)]);
      }
      for (size_t c = 0; c < 2; ++c) {
        norm += force[c] * force[c], error += std::pow(force[c] - grid[size_t(2 * i) + c], 2);
        EXPECT_NEAR(pairs[size_t(2 * i) + c], force[c], 1e-3 * (1 + std::abs(force[c])));
      }
    }
    EXPECT_NEAR(want / z, 1, 1e-5) << width;
    EXPECT_NEAR(got / z, 1, 5e-3) << width;
    EXPECT_LT(std::sqrt(error / norm), 2e-2) << width;
  }
}

TEST(Tsne, SeparatesBlobsTheSameForAnyThreads) {
  const int64_t n = 240, d = 8, k = 30;
  const std::vector<float> values = blobs(n, d, 3, 5);
  const PointSet points{values.data(), n, d};
  for (const int64_t dims : {2, 3}) {
    std::vector<float> start;
    for (int64_t i = 0; i < n; ++i) start.insert(start.end(), points.row(i), points.row(i) + dims);
    std::vector<Tsne> made;
    for (const int threads : {1, 2}) {
      Context ctx;
      ctx.threads = threads;
      TsneOptions options{.dims = dims, .perplexity = 10, .iterations = 200, .early = 80};
      if (dims == 2) options.repulsion = TsneOptions::Repulsion::grid;
      made.push_back(tsne(ctx, nearest_neighbours(ctx, points, k), start.data(), options));
    }
    EXPECT_EQ(made[0].places, made[1].places);
    EXPECT_EQ(made[0].kl, made[1].kl);
    EXPECT_GT(made[0].kl, 0);
    EXPECT_LT(made[0].kl, 1.2);
    Context ctx;
    const Neighbours near = nearest_neighbours(ctx, {made[0].places.data(), n, dims}, 5);
    for (int64_t e = 0; e < n * 5; ++e) EXPECT_EQ(near.index[size_t(e)] % 3, e / 5 % 3) << "a neighbour of another blob";
  }
}

TEST(Tsne, EqualPointsAndTooHighPerplexities) {
  Context ctx;
  std::vector<float> values = blobs(60, 3, 2, 3), start(120, 0.f);
  for (int i = 0; i < 30; ++i) std::copy_n(values.begin(), 3, values.begin() + 3 * i);
  const Neighbours near = nearest_neighbours(ctx, {values.data(), 60, 3}, 15);
  const Tsne made = tsne(ctx, near, start.data(), {.perplexity = 5, .iterations = 60, .early = 20});
  for (const float p : made.places) EXPECT_TRUE(std::isfinite(p));
  expect_error("a perplexity of 6 wants 18 neighbours, not 15", [&] { tsne(ctx, near, start.data(), {.perplexity = 6}); }, false);
}

// ---- the command

std::string labelled_digits(const TempFolder& folder) {
  for (int d = 0; d < 10; ++d) {
    const std::string to = folder / "digits/" + std::to_string(d % 2);
    std::filesystem::create_directories(to);
    std::filesystem::copy_file(digit(d), to + "/digit" + std::to_string(d) + ".png");
  }
  return folder / "digits";
}

TEST(CliEmbed, SeriesOfLayersArraysAndDocument) {
  const TempFolder folder;
  const std::string data = labelled_digits(folder);
  folder.put("digits/1/broken.png", "no image");
  const Outcome o = run_switchback({"embed", data, "--model", "lenet", "--layer", "input,relu2,fc2", "--clusters", "3",
                                    "--thumbnails", "--save", "png,svg,npy", "--json", "-o", folder / "out"});
  EXPECT_EQ(o.code, 1) << "the others are done";
  EXPECT_NE(o.err.find("broken.png"), std::string::npos) << o.err;
  const json d = o.json();
  EXPECT_EQ(d["points"], 10);
  ASSERT_EQ(d["layers"].size(), 3u);
  EXPECT_EQ(d["layers"][0]["layer"], "input");
  EXPECT_EQ(d["layers"][0]["values"], 784);
  EXPECT_GT(d["layers"][2]["explained"][0].get<double>(), d["layers"][2]["explained"][1].get<double>());
  EXPECT_GT(d["layers"][1]["inertia"].get<double>(), 0);
  const std::string settings = "-clusters3";
  const Tensor places = read_npy(result(d, "fc2" + settings + ".npy"));
  EXPECT_EQ(places.dims(), (Dims{10, 2}));
  Dims dims;
  const std::vector<int64_t> clusters = read_npy_integers(result(d, "fc2" + settings + ".clusters.npy"), {}, dims);
  EXPECT_EQ(dims, (Dims{10}));
  EXPECT_EQ(*std::max_element(clusters.begin(), clusters.end()), 2);
  EXPECT_FALSE(bytes_of(result(d, ".png")).empty());
}

TEST(CliEmbed, SwissRollTheSameForAnyThreads) {
  const TempFolder folder;
  std::vector<std::string> arrays;
  json d;
  for (const char* threads : {"1", "2"}) {
    d = succeed_json({"embed", "swiss-roll", "--limit", "300", "--method", "tsne", "--iterations", "200", "--perplexity", "15",
                      "--dims", "3", "--threads", threads, "--save", "npy", "--json", "-o", folder / threads});
    arrays.push_back(bytes_of(result(d, ".npy")));
  }
  EXPECT_EQ(arrays[0], arrays[1]);
  EXPECT_EQ(d["points"], 300);
  EXPECT_EQ(d["neighbours"], 45);
  EXPECT_GT(d["trustworthiness"].get<double>(), 0.97);
  EXPECT_LT(d["kl"].get<double>(), 1);
}

TEST(CliEmbed, PointsWithoutLabels) {
  const TempFolder folder;
  Tensor points({40, 3});
  for (int64_t e = 0; e < 120; ++e) points[e] = std::sin(float(e * e));
  write_npy(folder / "points.npy", points);
  const Outcome o = run_switchback({"embed", folder / "points.npy", "-o", folder.path()});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.out.find("no labels: points have one colour"), std::string::npos) << o.out;
}

TEST(CliEmbed, WhatCannotBeIsSaid) {
  const TempFolder folder;
  const std::string data = labelled_digits(folder);
  const auto fails = [&](std::vector<std::string> arguments, const std::string& part) {
    arguments.insert(arguments.begin(), "embed");
    arguments.insert(arguments.end(), {"-o", folder / "out"});
    const Outcome o = run_switchback(arguments);
    EXPECT_NE(o.code, 0) << o.line;
    EXPECT_NE(o.err.find(part), std::string::npos) << o.err;
  };
  const auto of_digits = [&](std::vector<std::string> more, const std::string& part) {
    more.insert(more.begin(), {data, "--model", "lenet"});
    fails(more, part);
  };
  of_digits({}, "--layer is missing");
  of_digits({"--layer", "conv9"}, "conv9");
  of_digits({"--layer", "fc2", "--method", "tsne"}, "a perplexity of 30 is more than a third of the 9 neighbours (--perplexity 3 or less)");
  of_digits({"--layer", "fc2", "--method", "tsne", "--perplexity", "2", "--neighbours", "10"}, "--neighbours 10");
  of_digits({"--layer", "fc2", "--clusters", "11"}, "--clusters 11 of 10 points");
  of_digits({"--layer", "fc2", "--dims", "4"}, "--dims 4 is out of range");
  of_digits({"--layer", "fc2", "--limit", "1"}, "1 point cannot be embedded");
  fails({"swiss-roll", "--model", "lenet", "--layer", "fc2"}, "swiss-roll has no images");
  fails({data}, "--model is missing");
  Tensor equal = Tensor::zeros({5, 1, 28, 28});
  write_npy(folder / "equal.npy", equal);
  fails({folder / "equal.npy", "--model", "lenet", "--layer", "conv1"}, "conv1 has the same values for all 5 points");
  EXPECT_FALSE(std::filesystem::exists(folder / "out/digits.embed-fc2.png"));
}

}  // namespace
}  // namespace switchback::test
