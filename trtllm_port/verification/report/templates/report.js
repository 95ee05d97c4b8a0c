document.querySelectorAll("pre .hit").forEach(function (line) {
  var code = line.parentElement, below = line.getBoundingClientRect().top - code.getBoundingClientRect().top;
  code.scrollTop += below - code.clientHeight / 2;
});
(function () {
  var metric = document.getElementById("metric"), phase = document.getElementById("phase");
  var hover = document.getElementById("hover"), cells = document.querySelectorAll(".cell");
  if (!metric) return;
  function paint() {
    var key = phase ? phase.value : "own", index = +metric.value, ratio = index < 3;
    cells.forEach(function (cell) {
      var shade = cell.dataset[key][index];
      cell.className = cell.className.replace(/ s[0-5-]/, " s" + shade);
    });
    document.getElementById("legend-ratio").hidden = !ratio;
    document.getElementById("legend-error").hidden = ratio;
  }
  cells.forEach(function (cell) {
    cell.addEventListener("mouseenter", function () { hover.textContent = cell.title; });
  });
  metric.addEventListener("change", paint);
  if (phase) phase.addEventListener("change", paint);
  paint();
})();
