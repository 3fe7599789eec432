package drill

// faults are the drills of accidents, and of Byzantine replicas.
var faults = []Drill{}
