// The public header of the library, installed as <switchback/switchback.h>: everything from weights to maps and
// pictures. A whole program that uses it: tests/install/main.cpp.
#pragma once

// Networks, their weights and how they run
#include "engine/model.h"
#include "engine/network.h"
#include "engine/plan.h"
#include "engine/safetensors.h"
#include "engine/tensor.h"
#include "engine/version.h"
#include "engine/zoo.h"

// Images, arrays, labels and data sets
#include "engine/dataset.h"
#include "engine/image.h"
#include "engine/labels.h"
#include "engine/npy.h"
#include "engine/npz.h"

// Methods
#include "viz/cam.h"
#include "viz/dump.h"
#include "viz/channels.h"
#include "viz/etalon.h"
#include "viz/gradient.h"
#include "viz/inspect.h"
#include "viz/plane.h"
#include "viz/regions.h"
#include "viz/target.h"

// Pictures
#include "viz/colormap.h"
#include "viz/grid.h"
#include "viz/render.h"
