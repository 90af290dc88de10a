#include "../moves.h"

#include "each.h"

namespace iguana {
IGUANA_MOVES(Cpu)
}
