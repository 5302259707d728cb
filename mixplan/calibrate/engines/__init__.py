"""Where runs run. An engine takes prepared run folders and returns when all of them are over."""
