// Lists of positions, ascending, and where a position stands in one.

#include <algorithm>
#include <cstdint>

extern "C" {

// Writes the positions at which `active` and `exists` hold, and those where `exists` holds at one of them or beside it;
// both lists are ascending and have room for every position. Masks are bytes, [images, height, width]; returns the
// length of the second list, and of the first through `num_active`.
int64_t list_positions(const uint8_t* active, const uint8_t* exists, int64_t images, int64_t height, int64_t width,
                       int64_t* actives, int64_t* num_active, int64_t* reads) {
    int64_t found = 0, around = 0;
    for (int64_t row = 0; row < images * height; row++) {
        const int64_t y = row % height, first = row * width;
        const uint8_t *here = active + first, *own = exists + first;
        const uint8_t* above = y > 0 ? here - width : here;
        const uint8_t* below = y + 1 < height ? here + width : here;
        uint8_t before = 0, now = here[0] | above[0] | below[0];
        for (int64_t x = 0; x < width; x++) {
            const uint8_t next = x + 1 < width ? here[x + 1] | above[x + 1] | below[x + 1] : 0;
            actives[found] = reads[around] = first + x;
            found += here[x] & own[x];
            around += (before | now | next) & own[x];
            before = now;
            now = next;
        }
    }
    *num_active = found;
    return around;
}

// For a list of positions, where each stands in it; -1 elsewhere.
void tabulate(const int64_t* list, int64_t count, int32_t* table, int64_t positions) {
    std::fill_n(table, positions, -1);
    for (int64_t i = 0; i < count; i++) table[list[i]] = static_cast<int32_t>(i);
}

}  // extern "C"
