// The index of a workgroup, whatever the grid was folded into: a dimension takes at most 65,535 of them.
fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}
