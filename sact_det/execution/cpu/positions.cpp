// Ascending lists of positions, and tables of where a position stands in a list.

#include <algorithm>
#include <cstdint>

extern "C" {

// Lists the active positions, and those of their 3x3 dilation, both ascending and without what does not exist. Masks are
// bytes, [images, height, width]; both lists have room for every position. Writes the length of the first to num_active and
// returns that of the second.
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

// Writes to table[position] where each position of a list stands in it, and -1 for all others.
void tabulate(const int64_t* list, int64_t count, int32_t* table, int64_t positions) {
    std::fill_n(table, positions, -1);
    for (int64_t i = 0; i < count; i++) table[list[i]] = static_cast<int32_t>(i);
}

}  // extern "C"
