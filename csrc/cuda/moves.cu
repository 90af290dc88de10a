#include "../moves.h"

#include "each.cuh"

namespace iguana {
IGUANA_MOVES(Cuda)
}
