"""What code that comes with a model expects of another release of transformers, while that code is imported or run.

In: nothing; `remote_code` is entered by those who let transformers load a model's own code. Out: the same, with names,
config keys and methods of a cache where older releases had them. Nothing of it is in force for transformers' own
models.

    names.py            names that older releases had, as data: what each one is now, or that nothing takes its place
    stand_ins.py        functions and methods of ours behind some of these names
    packages.py         packages that are imported and absent: an error where one is used, and not before
    config_classes.py   keys that every config had, and how rope parameters were spelled
    model_classes.py    tied weights as a list, constructors that do not finish what transformers asks for
    calls.py            what `forward` takes and gives, by the usual names
    lost_tensors.py     tables that no file holds, which loading leaves without content
    remote_code.py      puts them in force, and names file and line where they do not suffice

A name that a newcomer finds missing is a row in `names.py`.
"""
