/* tiny_llama.h - a language model for tests: 2 layers of 2 heads of 8, random weights, a vocabulary of bytes and a few words. */
#ifndef TEST_TINY_LLAMA_H
#define TEST_TINY_LLAMA_H

/** Writes it as a Hugging Face folder (config.json, model.safetensors, tokenizer.model) with positions for `context` tokens. Ends the
 *  program when it cannot. */
void tiny_llama_write(const char *folder, int context);

#endif
