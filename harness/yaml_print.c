/* yaml_print.c - JSON as YAML, for files that people go on with. See yaml.h */
#include <jansson.h>
#include <math.h>

#include "harness/number.h"
#include "harness/yaml.h"

static void print_map(FILE *f, const json_t *map) {
  const char *key, *between = "{";
  json_t *v;
  json_object_foreach((json_t *)(uintptr_t)map, key, v) {
    (void)fprintf(f, "%s%s: ", between, key);
    yaml_print(f, v);
    between = ", ";
  }
  (void)fputs(json_object_size(map) ? "}" : "{}", f);
}

void yaml_print(FILE *f, const json_t *v) {
  char text[40];
  if (json_is_object(v)) print_map(f, v);
  else if (json_is_array(v)) {
    (void)fputc('[', f);
    for (size_t i = 0; i < json_array_size(v); i++) {
      if (i) (void)fputs(", ", f);
      yaml_print(f, json_array_get(v, i));
    }
    (void)fputc(']', f);
  } else if (json_is_real(v) && json_real_value(v) != floor(json_real_value(v))) {
    number_print(json_real_value(v), text, sizeof text);
    (void)fputs(text, f);
  } else if (json_is_real(v)) (void)fprintf(f, "%.0f", json_real_value(v));
  else (void)json_dumpf(v, f, JSON_ENCODE_ANY);
}
