/* config_rule.h - the values of lists in experiment files, and rules (`exclude`, `when`) that say which cells there are. */
#ifndef ICE_CONFIG_RULE_H
#define ICE_CONFIG_RULE_H

#include "harness/config.h"
#include "harness/config_shape.h"
#include "harness/yaml.h"

enum { CONFIG_MAX_LIST = 1000 }; /* values of one list */

/** Writes ranges out and refuses what is no value or list of distinct values. */
int config_list_check(yaml_node *n, ice_err *e);

/** Words of the key `padding`, in the order of config_cell.padded. */
extern const char *const config_padding_words[];

typedef struct config_sweep { /* a parameter and its values, as they stand in the parameter struct: 8 bytes each */
  const attn_param *param;
  uint64_t *value;
  int count;
} config_sweep;
typedef struct config_sweeps {
  config_sweep *item;
  int n;
} config_sweeps;

/** Reads the values of a parameter; those given before are replaced. */
int config_sweeps_add(config_sweeps *s, const attn_method *m, const char *key, yaml_node *n, ice_err *e);
void config_sweeps_free(config_sweeps *s);

typedef struct config_rule { /* a cell matches when everything given agrees; a zeroed rule matches every cell */
  const attn_method *method;
  config_sweeps sweeps;
  yaml_node *task, *model, *seed, *length, *padding;
  config_shapes shape;
} config_rule;

/** Reads {method: iceformer, k: [16, 32], levels: 2, task: ..., model: ..., seed: ..., padding: ..., n: ...}. A rule of an entry has
 *  the entry's method and no key `method`; of NULL, the key may be given. Shapes are keys of tensors only. */
int config_rule_read(yaml_node *n, const attn_method *method, int tensors, config_rule *out, ice_err *e);
int config_rule_matches(const config_rule *r, const config_cell *c);
void config_rule_free(config_rule *r);

#endif
