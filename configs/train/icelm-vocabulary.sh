#!/bin/sh
# Makes the vocabulary of icelm: SentencePiece BPE, 8,192 pieces, digits apart, bytes for what is no piece.
#   configs/train/icelm-vocabulary.sh OUT.model        # and OUT.words: the words that are one piece, as often as all others of the dictionary
# Text: the glosses of WordNet (Debian wordnet-base; its licence is permissive) for English prose, and prompts that `icebench data make`
# generates for the words around them. What stands between a line's name and its number is one piece, so that they are neighbours. Nothing of the official LongEval test cases. Needs Debian's sentencepiece and wordnet-base.
set -eu
out=${1:?usage: icelm-vocabulary.sh OUT.model}
icebench=${ICEBENCH_BIN:-build/release/icebench}
words=${WORDS:-/usr/share/dict/words}
wordnet=${WORDNET_DIR:-/usr/share/wordnet}
home=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$icebench" data make longeval/lines --seed 71 --lengths 200 --examples 20 --out "$work" -q
"$icebench" data make longeval/topics --seed 71 --lengths 5 --examples 30 --out "$work" -q
(
  cd "$work" && cut -d'|' -f2 "$wordnet"/data.adj "$wordnet"/data.adv "$wordnet"/data.noun "$wordnet"/data.verb | sed 's/^ *//; /^$/d'
  sed 's/.*"prompt": "//; s/", "\(topics\|prompt_length\).*//; s/"}$//; s/\\n/\n/g; s/\\"/"/g' longeval/evaluation/*/testcases/*.jsonl
) >"$work/text"
cd "$work"
spm_train --input=text --model_prefix=icelm --vocab_size=8192 --model_type=bpe --byte_fallback=true --split_digits=true \
  '--user_defined_symbols=:▁REGISTER_CONTENT▁is▁<' \
  --character_coverage=0.9999 --normalization_rule_name=identity --remove_extra_whitespaces=false --add_dummy_prefix=true \
  --input_sentence_size=400000 --max_sentence_length=20000 --num_threads=1 >/dev/null 2>&1
# Common words are one piece each, and a list where every word stands once has them too rarely to learn them.
spm_export_vocab --model=icelm.model --output=icelm.vocab
sed -n 's/^▁\([a-z]\{3,12\}\)\t.*/\1/p' icelm.vocab | LC_ALL=C sort -u >common
grep -xE '[a-z]{3,12}' "$words" >icelm.words
i=0
while [ "$i" -lt 14 ]; do i=$((i + 1)) && cat common; done >>icelm.words
cd "$home"
mv "$work/icelm.model" "$out"
mv "$work/icelm.words" "${out%.model}.words"
