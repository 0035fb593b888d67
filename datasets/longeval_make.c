/* longeval_make.c - generators of LongEval. The frame of a prompt is that of the published files byte for byte (a message that a model
 * meets must look like those it is tested on); the words in it are ours.
 *
 * Lines   N names "adjective-noun", drawn without repetition; numbers 1..50000; the asked line is uniform.
 * Topics  N talks joined without a separator, drawn without repetition from a pool: talks of our own, or --pool FILE, a
 *         conversations.jsonl of upstream. Our talks are made of set phrases; no two prompts share a topic by more than chance.
 * Source  DachengLi1/LongChat, longeval/utils.py. */
#include "datasets/longeval.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "datasets/jsonl.h"
#include "datasets/manifest.h"
#include "datasets/source.h"
#include "kernels/core/fileio.h"

enum { CASES = 50, LARGEST_NUMBER = 50000, OWN_TALKS = 120 };

static const char LINES_OPENING[] =
    "Below is a record of lines I want you to remember. Each line begins with 'line <line index>' and contains a '<REGISTER_CONTENT>' at the "
    "end of the line as a numerical value. For each line index, memorize its corresponding <REGISTER_CONTENT>. At the end of the record, I will "
    "ask you to retrieve the corresponding <REGISTER_CONTENT> of a certain line index. Now the record start:\n\n";
static const char TOPICS_OPENING[] =
    "Below is a record of our previous conversation on %" PRId64 " different topics. You are the ASSISTANT, and I am the USER. At the beginning of "
    "each topic, the USER will say 'I would like to discuss the topic of <TOPIC>'. Memorize each <TOPIC>. At the end of the record, I will ask "
    "you to retrieve the first topic. Now the record start. ";
static const char TOPICS_CLOSING[] =
    " Now the record ends. What is the first topic we discussed? Only give me the topic name. Do not summarize yourself.";

/* --- words ---------------------------------------------------------------------------------------------------------- */

#define LIST(name, ...) static const char *const name[] = {__VA_ARGS__}
#define COUNT(list) ((int64_t)(sizeof(list) / sizeof *(list)))

LIST(adjectives, "able", "amber", "ample", "ancient", "arctic", "autumn", "awake", "azure", "bashful", "bitter", "blunt", "bold", "brave", "brief",
     "bright", "brisk", "bronze", "calm", "candid", "careful", "careless", "cheerful", "chilly", "clever", "cloudy", "coastal", "cold", "common",
     "coral", "cosy", "crisp", "curious", "daring", "dark", "dawning", "deep", "dense", "distant", "drowsy", "dry", "dusty", "eager", "early",
     "earnest", "eastern", "easy", "empty", "evening", "exact", "faded", "fair", "faithful", "famous", "fancy", "fast", "fearless", "final", "fine",
     "flat", "fluent", "foggy", "formal", "fragile", "frank", "fresh", "frosty", "full", "gentle", "giant", "glad", "glossy", "golden", "graceful",
     "grand", "green", "hasty", "hazy", "heavy", "hidden", "hollow", "honest", "humble", "humid", "icy", "idle", "inner", "jolly", "jovial", "keen",
     "kind", "large", "late", "lazy", "level", "light", "little", "lively", "local", "lonely", "long", "loud", "loyal", "lucky", "mellow", "merry",
     "mighty", "mild", "misty", "modern", "modest", "muddy", "narrow", "neat", "noble", "northern", "odd", "open", "orange", "outer", "pale",
     "patient", "plain", "polite", "proud", "purple", "quick", "quiet", "rapid", "rare", "ready", "restless", "rich", "rough", "round", "royal",
     "rural", "rusty", "salty", "scarlet", "secret", "serious", "shady", "sharp", "short", "shy", "silent", "silver", "simple", "slow", "smooth",
     "sober", "soft", "solid", "southern", "spare", "steady", "steep", "stern", "strange", "strict", "strong", "sudden", "sunny", "sweet", "swift",
     "tall", "tame", "tender", "thin", "tidy", "tiny", "tired", "urban", "useful", "vague", "vast", "velvet", "warm", "weary", "western", "wide",
     "wild", "windy", "winter", "wise", "witty", "wooden", "yellow", "young", "zealous");
LIST(nouns, "acorn", "airport", "anchor", "ankle", "apple", "apron", "arrow", "atlas", "attic", "badge", "bakery", "balcony", "banner", "barley", "barrel",
     "basin", "basket", "beach", "beacon", "bell", "bench", "berry", "blanket", "bottle", "branch", "bread", "breeze", "brick", "bridge", "bucket",
     "button", "cabin", "candle", "canvas", "canyon", "carpet", "castle", "cedar", "cellar", "chain", "chalk", "chapel", "chart", "cherry", "chimney",
     "circle", "clay", "cliff", "clock", "cloud", "clover", "coach", "coin", "comet", "copper", "corner", "cotton", "cradle", "crane", "creek",
     "cricket", "crown", "curtain", "cushion", "daisy", "desert", "desk", "diary", "dolphin", "donkey", "door", "dragon", "drum", "eagle", "easel",
     "echo", "elbow", "engine", "falcon", "farm", "feather", "fence", "ferry", "fiddle", "field", "finch", "flag", "flame", "flute", "forest", "fountain",
     "fox", "garden", "gate", "glacier", "glass", "glove", "granite", "grape", "hammer", "harbour", "harp", "hazel", "hedge", "helmet", "heron", "hill",
     "hinge", "honey", "horizon", "hotel", "island", "ivory", "jacket", "jar", "jewel", "journey", "juniper", "kettle", "key", "kitchen", "kite",
     "ladder", "lagoon", "lamp", "lantern", "lark", "lemon", "letter", "library", "lily", "linen", "lizard", "lobster", "magnet", "mango", "maple",
     "marble", "market", "meadow", "melon", "mill", "mirror", "mitten", "mountain", "museum", "napkin", "needle", "nest", "notebook", "oak", "oasis",
     "ocean", "olive", "orchard", "otter", "oven", "owl", "paddle", "palace", "panther", "parcel", "parrot", "path", "pear", "pebble", "pencil", "piano",
     "pillow", "pine", "planet", "plate", "pocket", "pond", "poppy", "prairie", "prism", "puddle", "quarry", "quilt", "rabbit", "radio", "raft", "rain",
     "raven", "reef", "ribbon", "river", "robin", "rocket", "roof", "rope", "saddle", "sail", "salmon", "satin", "school", "shadow", "shell", "shovel",
     "signal", "sparrow", "spoon", "spring", "square", "stable", "station", "stone", "storm", "stream", "summit", "swan", "table", "teapot", "temple",
     "thimble", "thunder", "ticket", "timber", "tower", "trumpet", "tulip", "tunnel", "turtle", "umbrella", "valley", "vessel", "village", "violin",
     "wagon", "wallet", "walnut", "water", "willow", "window", "wolf", "yarn", "zebra");

LIST(aspects, "The history of", "The future of", "The science of", "The craft of", "The economics of", "The beauty of", "The dangers of", "The benefits of",
     "The psychology of", "The philosophy of", "The language of", "The origins of");
LIST(subjects, "bee keeping", "bridge building", "railway travel", "lighthouses", "glass blowing", "map making", "tidal power", "mountain farming",
     "street markets", "public libraries", "chess", "choir singing", "bread baking", "bird migration", "volcanoes", "coral reefs", "river navigation",
     "desert gardens", "paper folding", "clock making", "school theatre", "village festivals", "long distance running", "wooden boats", "tea houses",
     "city parks", "night skies", "weather forecasts", "water mills", "comic books", "board games", "handwriting", "family recipes", "forest paths",
     "wind instruments", "stone bridges", "animal tracks", "silent films", "radio plays", "allotment gardens", "canal boats", "wild mushrooms",
     "mosaics", "puppet shows", "crossword puzzles", "bicycle repair", "cheese making", "knitting", "cave paintings", "sea shanties", "star maps",
     "harbour towns", "early aircraft", "country dancing", "postage stamps", "rope making", "orchards", "sundials", "ice skating", "folk tales");
LIST(openings, "Sure, I would be glad to talk about that. Where shall we begin?", "Of course, that is a fine subject. What would you like to know?",
     "With pleasure. Is there a side of it that you care about most?", "Certainly. I can start wherever you like.");
LIST(questions, "What should somebody know who has never thought about %s before?", "How did people come to care about %s in the first place?",
     "What do most people get wrong about %s?", "Which part of %s do you find the most surprising?", "How does %s change the daily life of a town?",
     "Is there a good way to learn more about %s without spending much?", "What would be lost if nobody cared about %s any more?");
LIST(claims, "One thing stands out: those who spend time with it tend to notice details that others pass by",
     "Most accounts agree that it began small, with a few people who shared what they knew",
     "There is more to it than one sees at first, and the reasons are often practical ones",
     "Teachers like to use it as an example, because cause and effect can be seen with the bare eye",
     "It rewards patience, since the first attempts seldom go as planned", "Much of what we know comes from letters and notebooks that were kept by chance",
     "The tools have become better over the years, yet the principles have hardly moved",
     "In many places it brings together people who would otherwise never have met",
     "It asks for a steady hand, a quiet hour and a certain taste for repetition", "Costs matter too, and they are lower than one would guess");
LIST(reasons, "which is why beginners are told to start with something simple", "and the same holds in regions with quite another climate",
     "so a good guide saves a great deal of trouble", "though opinions differ about how far that goes",
     "as anybody can check with an afternoon to spare", "and this has been described again and again since",
     "even if it is easy to forget in a busy week", "which also explains why it never went out of fashion");
LIST(remarks, "That makes sense.", "I had not thought of that.", "That is good to hear.", "Interesting, thank you.", "I see what you mean.");

static const char *pick(attn_rng *r, const char *const *list, int64_t n) { return list[attn_rng_below(r, (uint64_t)n)]; }
#define PICK(r, list) pick(r, list, COUNT(list))

/* `count` of the numbers below n, all different, in random order; to free(). NULL when out of memory. */
static int64_t *draw_distinct(attn_rng *r, int64_t n, int64_t count) {
  int64_t *x = malloc((size_t)n * sizeof *x);
  for (int64_t i = 0; x && i < n; i++) x[i] = i;
  for (int64_t i = 0; x && i < count; i++) {
    const int64_t k = i + (int64_t)attn_rng_below(r, (uint64_t)(n - i)), swap = x[i];
    x[i] = x[k], x[k] = swap;
  }
  return x;
}

/* --- prompts -------------------------------------------------------------------------------------------------------- */

int64_t longeval_most_lines(void) { return COUNT(adjectives) * COUNT(nouns); }

void longeval_name(int64_t pair, char name[LONGEVAL_NAME]) {
  (void)snprintf(name, LONGEVAL_NAME, "%s-%s", adjectives[pair / COUNT(nouns)], nouns[pair % COUNT(nouns)]);
}

char *longeval_lines_text(int64_t n, const longeval_line *line, int64_t asked) {
  char *text = NULL;
  size_t size = 0;
  FILE *f = open_memstream(&text, &size);
  if (!f) return NULL;
  (void)fputs(LINES_OPENING, f);
  for (int64_t i = 0; i < n; i++) (void)fprintf(f, LONGEVAL_LINE "\n", line[i].name, line[i].number);
  (void)fprintf(f, "\nNow the record is over. " LONGEVAL_QUESTION, line[asked].name);
  if (fclose(f)) free(text), text = NULL;
  return text;
}

int64_t longeval_number(attn_rng *r) { return 1 + (int64_t)attn_rng_below(r, LARGEST_NUMBER); }

char *longeval_lines_prompt(attn_rng *r, int64_t n, int64_t *position, longeval_line *asked) {
  int64_t *pair = draw_distinct(r, longeval_most_lines(), n);
  longeval_line *line = malloc((size_t)n * sizeof *line);
  *position = (int64_t)attn_rng_below(r, (uint64_t)n);
  for (int64_t i = 0; pair && line && i < n; i++) {
    line[i].number = longeval_number(r);
    longeval_name(pair[i], line[i].name);
  }
  char *text = pair && line ? longeval_lines_text(n, line, *position) : NULL;
  if (text) *asked = line[*position];
  free(line);
  free(pair);
  return text;
}

char *longeval_topics_prompt(const longeval_talk *const *talk, int64_t n) {
  char *text = NULL;
  size_t size = 0;
  FILE *f = open_memstream(&text, &size);
  if (!f) return NULL;
  (void)fprintf(f, TOPICS_OPENING, n);
  for (int64_t i = 0; i < n; i++) (void)fputs(talk[i]->conversation, f);
  (void)fputs(TOPICS_CLOSING, f);
  if (fclose(f)) free(text), text = NULL;
  return text;
}

/* --- talks ---------------------------------------------------------------------------------------------------------- */

/* A claim and a reason; with a writer of other words, half of the time those. */
static void add_sentence(attn_rng *r, const char *claim, const longeval_words *other, FILE *f) {
  if (other && attn_rng_below(r, 2)) other->sentence(other->ctx, r, f);
  else (void)fprintf(f, " %s, %s.", claim, PICK(r, reasons));
}

static void add_turns(attn_rng *r, const char *subject, int64_t least, int64_t most, const longeval_words *other, FILE *f) {
  const int64_t turns = least + (int64_t)attn_rng_below(r, (uint64_t)(most - least + 1));
  int64_t *question = draw_distinct(r, COUNT(questions), turns);
  for (int64_t t = 0; question && t < turns; t++) {
    (void)fprintf(f, " \n USER: %s ", t ? PICK(r, remarks) : "I would like to hear the basics.");
    const char *q = questions[question[t]], *hole = strstr(q, "%s");
    (void)fprintf(f, "%.*s%s%s \n ASSISTANT:", (int)(hole - q), q, subject, hole + 2);
    int64_t *claim = draw_distinct(r, COUNT(claims), 3);
    for (int i = 0; claim && i < 3; i++) add_sentence(r, claims[claim[i]], other, f);
    free(claim);
  }
  free(question);
}

int longeval_write_talk(attn_rng *r, const char *topic, const char *subject, int64_t least, int64_t most, const longeval_words *other, longeval_talk *out) {
  size_t size = 0;
  *out = (longeval_talk){.topic = strdup(topic)};
  FILE *f = out->topic ? open_memstream(&out->conversation, &size) : NULL;
  if (!f) return 0;
  (void)fprintf(f, "USER: I would like to discuss the topic of %c%s. \n ASSISTANT: %s", tolower((unsigned char)*topic), topic + 1, PICK(r, openings));
  add_turns(r, subject, least, most, other, f);
  (void)fprintf(f, " \n USER: Great, this is the end of our discussion on the topic %s, let's talk about the next topic.", topic);
  return fclose(f) == 0;
}

void longeval_own_topic(attn_rng *r, char topic[LONGEVAL_TOPIC], const char **subject) {
  const char *aspect = PICK(r, aspects);
  *subject = PICK(r, subjects);
  (void)snprintf(topic, LONGEVAL_TOPIC, "%s %s", aspect, *subject);
}

int longeval_make_talk(attn_rng *r, longeval_talk *out) {
  char topic[LONGEVAL_TOPIC];
  const char *subject;
  longeval_own_topic(r, topic, &subject);
  return longeval_write_talk(r, topic, subject, 4, 5, NULL, out);
}

void longeval_free_talk(longeval_talk *t) {
  free(t->topic);
  free(t->conversation);
}

typedef struct talks {
  longeval_talk *talk;
  int64_t count;
} talks;

static void free_talks(talks *p) {
  for (int64_t i = 0; i < p->count; i++) longeval_free_talk(p->talk + i);
  free(p->talk);
  *p = (talks){0};
}

static int has_topic(const talks *p, const char *topic) {
  for (int64_t i = 0; i < p->count; i++)
    if (!strcmp(p->talk[i].topic, topic)) return 1;
  return 0;
}

static int own_talks(attn_rng *r, talks *p, ice_err *e) {
  if (!(p->talk = calloc(OWN_TALKS, sizeof *p->talk))) return ice_fail(e, ICE_INTERNAL, "out of memory for talks");
  while (p->count < OWN_TALKS) {
    longeval_talk t;
    const int made = longeval_make_talk(r, &t);
    if (made && !has_topic(p, t.topic)) {
      p->talk[p->count++] = t;
      continue;
    }
    longeval_free_talk(&t);
    if (!made) return ice_fail(e, ICE_INTERNAL, "out of memory for talks");
  }
  return ICE_OK;
}

static int read_pool_rows(jsonl *j, talks *p, ice_err *e) {
  for (int more = 1;;) {
    const char *topic, *text;
    ICE_TRY(jsonl_next(j, &more, e));
    if (!more) return p->count ? ICE_OK : ice_fail(e, ICE_DATA, "%s: holds no conversations", j->name);
    ICE_TRY(jsonl_string(j, "topic", 0, &topic, e));
    ICE_TRY(jsonl_string(j, "conversation", 0, &text, e));
    if (has_topic(p, topic)) return jsonl_fail(j, e, "topic '%.60s' stands twice", topic);
    longeval_talk *grown = realloc(p->talk, (size_t)(p->count + 1) * sizeof *grown);
    if (grown) p->talk = grown, grown[p->count++] = (longeval_talk){strdup(topic), strdup(text)};
    if (!grown || !grown[p->count - 1].topic || !grown[p->count - 1].conversation) return ice_fail(e, ICE_INTERNAL, "out of memory for talks");
  }
}

static int read_pool(const char *path, talks *p, ice_err *e) {
  source s;
  jsonl j;
  ICE_TRY(source_open(path, (size_t)1 << 28, &s, e));
  jsonl_open(&j, s.p, s.n, path);
  const int rc = read_pool_rows(&j, p, e);
  jsonl_close(&j);
  source_close(&s);
  return rc;
}

/* --- files ---------------------------------------------------------------------------------------------------------- */

typedef struct maker {
  const task_make_options *o;
  int lines; /* else topics */
  attn_rng r;
  talks pool;
} maker;

/* One test case, with the fields of the published files. */
static json_t *make_case(maker *m, int64_t length, int64_t number) {
  int64_t position = 0;
  longeval_line asked;
  char *text;
  json_t *row = NULL;
  if (m->lines) {
    text = longeval_lines_prompt(&m->r, length, &position, &asked);
    char line[160] = "";
    if (text) (void)snprintf(line, sizeof line, LONGEVAL_LINE "\n", asked.name, asked.number);
    if (text)
      row = json_pack("{s:[s,I], s:I, s:I, s:s, s:s}", "random_idx", asked.name, (json_int_t)position, "expected_number", (json_int_t)asked.number, "num_lines",
                      (json_int_t)length, "correct_line", line, "prompt", text);
    free(text);
    return row;
  }
  int64_t *chosen = draw_distinct(&m->r, m->pool.count, length);
  const longeval_talk **talk = calloc((size_t)length, sizeof *talk);
  json_t *topics = json_array();
  for (int64_t i = 0; chosen && talk && i < length; i++) {
    talk[i] = m->pool.talk + chosen[i];
    (void)json_array_append_new(topics, json_string(talk[i]->topic));
  }
  text = chosen && talk ? longeval_topics_prompt(talk, length) : NULL;
  if (text) row = json_pack("{s:I, s:s, s:O, s:i}", "test_id", (json_int_t)number, "prompt", text, "topics", topics, "prompt_length", -1);
  json_decref(topics);
  free(text), free(chosen), free((void *)talk);
  return row;
}

static int make_rows(maker *m, int64_t length, int64_t count, FILE *f, XXH3_state_t *hash, ice_err *e) {
  for (int64_t i = 0; i < count; i++) {
    if (m->o->stop && *m->o->stop) return ice_fail(e, ICE_INTERNAL, "interrupted");
    json_t *row = make_case(m, length, i);
    char *text = row ? json_dumps(row, JSON_ENSURE_ASCII) : NULL;
    json_decref(row);
    if (!text) return ice_fail(e, ICE_INTERNAL, "out of memory for a test case");
    (void)fprintf(f, "%s\n", text);
    (void)XXH3_64bits_update(hash, text, strlen(text));
    (void)XXH3_64bits_update(hash, "\n", 1);
    free(text);
  }
  return ICE_OK;
}

static void file_name(const maker *m, int64_t length, char *name, size_t size) {
  (void)snprintf(name, size, "%" PRId64 "_%s.jsonl", length, m->lines ? "lines" : "topics");
}

/* One file and its entry in the record. Every length draws from a stream of its own, so that the choice of lengths changes no file. */
static int make_file(maker *m, const char *dir, int64_t length, json_t *made, ice_err *e) {
  char name[64], path[FILE_PATH], hex[17];
  const int64_t count = m->o->examples ? m->o->examples : CASES;
  file_out o;
  XXH3_state_t *hash = XXH3_createState();
  if (!hash) return ice_fail(e, ICE_INTERNAL, "out of memory");
  attn_rng_seed(&m->r, m->o->seed, (uint64_t)(2 * length + m->lines));
  (void)XXH3_64bits_reset(hash);
  file_name(m, length, name, sizeof name);
  int rc = file_join(path, dir, name, e);
  if (rc == ICE_OK && (rc = file_out_open(&o, path, e)) == ICE_OK) {
    rc = make_rows(m, length, count, o.stream, hash, e);
    if (rc == ICE_OK) rc = file_out_commit(&o, e);
    else file_out_abort(&o);
  }
  (void)snprintf(hex, sizeof hex, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(hash));
  (void)XXH3_freeState(hash);
  if (rc != ICE_OK) return rc;
  json_t *one = json_pack("{s:I,s:s}", "examples", (json_int_t)count, "xxh3", hex);
  return one && !json_object_set_new(made, name, one) ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
}

static int check_lengths(const maker *m, const int *length, ice_err *e) {
  const int64_t most = m->lines ? longeval_most_lines() : m->pool.count;
  for (; *length; length++)
    if (*length < 1 || *length > most)
      return ice_fail(e, ICE_USAGE, "--lengths: %d, allowed 1..%" PRId64 "%s", *length, most, m->lines ? "" : ", the conversations there are");
  return ICE_OK;
}

/* The record to go on with: that of an earlier making by the same seed, whose other lengths stay, or a new one. Files without a
 * record are official and stay what they are. */
static int open_record(const maker *m, const char *dir, const int *length, json_t **made, ice_err *e) {
  char path[FILE_PATH], name[64], seed[24];
  int there = 0, found = 0;
  ICE_TRY(source_find(dir, MANIFEST_FILE, path, &there, e));
  for (; !there && *length; length++) {
    file_name(m, *length, name, sizeof name);
    ICE_TRY(source_find(dir, name, path, &found, e));
    if (found) return ice_fail(e, ICE_USAGE, "%s: official files lie there; name another --out", path);
  }
  (void)snprintf(seed, sizeof seed, "%" PRIu64, m->o->seed);
  const char *before = there && manifest_read(dir, "longeval", made, NULL) == ICE_OK ? json_string_value(json_object_get(*made, "seed")) : NULL;
  if (before && !strcmp(before, seed)) return ICE_OK;
  json_decref(*made);
  *made = manifest_new("icebench longeval 1", m->o->seed);
  return *made ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
}

static int make_all(maker *m, ice_err *e) {
  static const int lines[] = {200, 300, 400, 500, 600, 680, 0}, topics[] = {5, 10, 15, 20, 25, 0};
  const int *length = m->o->lengths ? m->o->lengths : m->lines ? lines : topics;
  int64_t total = 0, done = 0;
  char dir[FILE_PATH];
  json_t *made = NULL;
  ICE_TRY(check_lengths(m, length, e));
  ICE_TRY(file_join(dir, m->o->out, m->lines ? "longeval/evaluation/lines/testcases" : "longeval/evaluation/topics/testcases", e));
  ICE_TRY(file_make_dirs(dir, e));
  ICE_TRY(open_record(m, dir, length, &made, e));
  while (length[total]) total++;
  int rc = manifest_write(made, dir, 0, e);
  for (; rc == ICE_OK && *length; length++) {
    rc = make_file(m, dir, *length, made, e);
    if (m->o->progress) m->o->progress(m->o->ctx, ++done, total);
  }
  if (rc == ICE_OK) rc = manifest_write(made, dir, 1, e);
  json_decref(made);
  return rc;
}

int longeval_make_lines(const task_make_options *o, ice_err *e) {
  maker m = {.o = o, .lines = 1};
  if (o->pool) return ice_fail(e, ICE_USAGE, "--pool: lines have no conversations; it belongs to longeval/topics");
  return make_all(&m, e);
}

int longeval_make_topics(const task_make_options *o, ice_err *e) {
  maker m = {.o = o};
  attn_rng r;
  attn_rng_seed(&r, o->seed, 0);
  int rc = o->pool ? read_pool(o->pool, &m.pool, e) : own_talks(&r, &m.pool, e);
  if (rc == ICE_OK) rc = make_all(&m, e);
  free_talks(&m.pool);
  return rc;
}
