/* An allocator for LD_PRELOAD that ends the process at the first access outside of a tensor.

   torch asks posix_memalign for the memory of its tensors, aligned to 64 bytes. Each such block gets
   pages of its own, between two that nobody may touch. It ends where the pages end, to 63 bytes, or
   with GUARD_SIDE=before begins where they begin. New memory holds a pattern that is a NaN to every
   type of floating point, and freed memory is unmapped, so that reading what was freed ends the
   process, too. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, ALIGNMENT = 64, SMALLEST = 16, PLACES = 1 << 18, MOST = 1 << 14 };

typedef struct {
  char *block; /* 0: never used, REMOVED: used before */
  char *pages;
  size_t length;
} Place;

#define REMOVED ((char *)1)

static Place places[PLACES];
static size_t used;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static int (*real_memalign)(void **, size_t, size_t);
static void (*real_free)(void *);
static void *(*real_realloc)(void *, size_t);
static size_t (*real_usable_size)(void *);
static int guarded_before;

static void find_real(void) {
  if (real_free != NULL) return;
  guarded_before = getenv("GUARD_SIDE") != NULL && strcmp(getenv("GUARD_SIDE"), "before") == 0;
  real_memalign = (int (*)(void **, size_t, size_t))dlsym(RTLD_NEXT, "posix_memalign");
  real_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
  real_usable_size = (size_t(*)(void *))dlsym(RTLD_NEXT, "malloc_usable_size");
  real_free = (void (*)(void *))dlsym(RTLD_NEXT, "free");
}

static size_t begin_of_search(const char *block) {
  return (size_t)(((uintptr_t)block >> 6) * 0x9E3779B97F4A7C15u >> 46) % PLACES;
}

/* The place of a block, NULL if it is none of ours. The caller holds the lock. */
static Place *find(const char *block) {
  if ((uintptr_t)block % ALIGNMENT) return NULL;
  for (size_t i = begin_of_search(block), k = 0; k < PLACES; k++, i = (i + 1) % PLACES) {
    if (places[i].block == block) return &places[i];
    if (places[i].block == NULL) return NULL;
  }
  return NULL;
}

int posix_memalign(void **result, size_t alignment, size_t size) {
  find_real();
  if (alignment != ALIGNMENT || size < SMALLEST || used >= MOST)
    return real_memalign(result, alignment, size);
  size_t body = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  size_t inner = (body + PAGE - 1) / PAGE * PAGE, length = inner + 2 * PAGE;
  char *pages = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return real_memalign(result, alignment, size);
  mprotect(pages + PAGE, inner, PROT_READ | PROT_WRITE);
  char *block = pages + PAGE + (guarded_before ? 0 : inner - body);
  memset(block, 0xFF, body);
  pthread_mutex_lock(&one_at_a_time);
  size_t i = begin_of_search(block);
  while (places[i].block != NULL && places[i].block != REMOVED) i = (i + 1) % PLACES;
  places[i] = (Place){block, pages, length};
  used++;
  pthread_mutex_unlock(&one_at_a_time);
  *result = block;
  return 0;
}

/* Take a block out of the table; its place as it was, with block NULL if it is none of ours. */
static Place taken(char *block) {
  Place found = {NULL, NULL, 0};
  pthread_mutex_lock(&one_at_a_time);
  Place *place = find(block);
  if (place != NULL) {
    found = *place;
    place->block = REMOVED;
    used--;
    /* Where no search leads on from here, none has to lead here. */
    size_t i = (size_t)(place - places);
    if (places[(i + 1) % PLACES].block == NULL)
      for (; places[i].block == REMOVED; i = (i + PLACES - 1) % PLACES) places[i].block = NULL;
  }
  pthread_mutex_unlock(&one_at_a_time);
  return found;
}

void free(void *block) {
  if (block == NULL) return;
  find_real();
  Place place = taken(block);
  if (place.block == NULL)
    real_free(block);
  else
    munmap(place.pages, place.length);
}

size_t malloc_usable_size(void *block) {
  find_real();
  pthread_mutex_lock(&one_at_a_time);
  Place *place = find(block);
  size_t size = place == NULL ? 0 : (size_t)(place->pages + place->length - PAGE - place->block);
  pthread_mutex_unlock(&one_at_a_time);
  return place == NULL ? real_usable_size(block) : size;
}

void *realloc(void *block, size_t size) {
  find_real();
  pthread_mutex_lock(&one_at_a_time);
  int ours = block != NULL && find(block) != NULL;
  pthread_mutex_unlock(&one_at_a_time);
  if (!ours) return real_realloc(block, size);
  size_t before = malloc_usable_size(block);
  void *other = malloc(size);
  if (other == NULL) return NULL;
  memcpy(other, block, before < size ? before : size);
  free(block);
  return other;
}
