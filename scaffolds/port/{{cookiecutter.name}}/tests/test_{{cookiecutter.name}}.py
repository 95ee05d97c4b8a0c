test placeholder {{ cookiecutter.name }}
