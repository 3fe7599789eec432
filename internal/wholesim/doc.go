package wholesim
