from lm.early.ngram import NGram, NGramModel
from lm.early.stream import Stream, of_batches, stream
