// The plane of a network with two inputs: each hidden unit's line {x : w.x + b = 0}, which deeper layers bend where it
// crosses the lines before it, and the linear regions between them. Not traced on a raster: the box is cut, layer by
// layer, into convex polygons on each of which every unit is affine (Montufar et al. 2014, section 2).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/model.h"
#include "viz/pictures/canvas.h"

namespace switchback {

struct PlaneBox {
  double left = -1, right = 1, bottom = -1, top = 1;
};

struct PlaneRegion {
  std::vector<Point> polygon;                  // convex, counter-clockwise, in input units (y upwards)
  std::vector<std::array<double, 3>> outputs;  // output k is o[0] x + o[1] y + o[2] on it
};

struct PlaneLine {  // a straight piece of a unit's line, across one polygon
  int layer = 0;    // index into PlaneMap::layers
  int64_t unit = 0;
  Point from, to;
};

struct PlaneLayer {  // a ReLU
  std::string name;
  int64_t units = 0;
  int64_t crossing = 0;  // units that are on in a part of the box only: their lines cross it
  int64_t off = 0;       // units that are off in all of the box
  int64_t regions = 0;   // of the network up to here
};

struct PlaneMap {
  PlaneBox box;
  std::vector<PlaneLayer> layers;
  std::vector<PlaneRegion> regions;  // every pattern of gates that a part of the box has is one region
  std::vector<PlaneLine> lines;
};

// In double precision on the CPU. Takes networks of Linear, (clipped) ReLU, BatchNorm2d, Add, Concat, Flatten and
// Dropout; a final softmax is left out. Throws naming another layer, where the network has not two inputs or no ReLU,
// and beyond a million regions.
PlaneMap plane_map(const Model& model, const PlaneBox& box);

// The largest output at a place of the region, the first of equals; of a single output, whether it is positive.
int64_t class_at(const PlaneRegion& region, Point at);

// Index of the region that holds a point of the box; -1 outside of it.
int64_t region_of(const PlaneMap& map, Point at);

struct PlanePoint {
  Point at;
  int label = 0;
};

// Regions in the colour of their class, each in its own shade; lines by layer, with a legend below; points over it.
// `side`: the longer one of the box, in pixels; density: pixels of the regions' image for each of them.
Canvas plane_picture(const PlaneMap& map, std::span<const PlanePoint> points, int side, int density = 2);

}  // namespace switchback
