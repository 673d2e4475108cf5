namespace bitnet {}
