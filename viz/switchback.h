// The public header of the library, installed as <switchback/switchback.h>: everything from weights to maps and
// pictures. A whole program that uses it: tests/install/main.cpp.
#pragma once

// Networks, their weights and how they run
#include "engine/model.h"
#include "engine/network.h"
#include "engine/run/backward.h"
#include "engine/run/plan.h"
#include "engine/files/safetensors.h"
#include "engine/tensor.h"
#include "engine/train/augment.h"
#include "engine/train/schedule.h"
#include "engine/train/trainer.h"
#include "engine/version.h"
#include "engine/zoo/zoo.h"

// Images, arrays, labels and data sets
#include "engine/files/dataset.h"
#include "engine/files/image.h"
#include "engine/files/labels.h"
#include "engine/files/npy.h"
#include "engine/files/npz.h"

// Methods
#include "viz/methods/cam.h"
#include "viz/methods/dump.h"
#include "viz/methods/channels.h"
#include "viz/methods/etalon.h"
#include "viz/methods/gradient.h"
#include "viz/methods/inspect.h"
#include "viz/methods/occlusion.h"
#include "viz/methods/judge.h"
#include "viz/methods/perturb.h"
#include "viz/methods/plane.h"
#include "viz/methods/regions.h"
#include "viz/methods/similarity.h"
#include "viz/methods/subgraph.h"
#include "viz/methods/target.h"
#include "viz/methods/top.h"

// Pictures
#include "viz/pictures/colormap.h"
#include "viz/pictures/grid.h"
#include "viz/pictures/render.h"
