"""The same six classes under two levels and under three, for tests of the methods."""

from hiposeg_cli.hierarchy_yaml import parse_hierarchy

TWO = parse_hierarchy("""
schema: hiposeg/hierarchy@1
name: toy
levels: [fine, coarse]
classes:
  coarse: [{name: sky}, {name: car}, {name: dog}]
  fine:
    - {name: sky, parent: sky}
    - {name: wheel, parent: car}
    - {name: door, parent: car}
    - {name: head, parent: dog}
    - {name: leg, parent: dog}
    - {name: tail, parent: dog}
""")
THREE = parse_hierarchy("""
schema: hiposeg/hierarchy@1
name: three
levels: [part, object, kind]
classes:
  kind: [{name: ground}, {name: thing}]
  object: [{name: sky, parent: ground}, {name: car, parent: thing}, {name: dog, parent: thing}]
  part:
    - {name: sky, parent: sky}
    - {name: wheel, parent: car}
    - {name: door, parent: car}
    - {name: head, parent: dog}
    - {name: leg, parent: dog}
    - {name: tail, parent: dog}
""")
