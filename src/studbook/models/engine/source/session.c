#include "engine.h"
void sessions_invalidate(void) {}
void sessions_close(void) {}
