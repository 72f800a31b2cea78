"use strict";
const plots = JSON.parse(document.getElementById("plots").textContent);
const common = {
  font: { family: "system-ui, 'Segoe UI', Roboto, Arial, sans-serif", size: 12, color: "#1b1f24" },
  margin: { l: 60, r: 24, t: 48, b: 48 },
  height: 340,
  paper_bgcolor: "#ffffff",
  plot_bgcolor: "#ffffff",
  modebar: { bgcolor: "rgba(255,255,255,0)", color: "#b6bec9", activecolor: "#2457a6" },
  hoverlabel: { namelength: -1 },
};
const axis = { gridcolor: "#e6eaef", zerolinecolor: "#c3cad4", linecolor: "#c3cad4", automargin: true };
const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

function layoutOf(layout) {
  const whole = { ...common, xaxis: {}, yaxis: {}, ...layout };
  for (const key of Object.keys(whole)) {
    if (/^[xy]axis\d*$/.test(key)) whole[key] = { ...axis, ...whole[key] };
  }
  return whole;
}

async function drawAll() {
  for (const [name, plot] of Object.entries(plots)) {
    await Plotly.newPlot(document.getElementById(name), plot.data, layoutOf(plot.layout), config);
  }
  document.body.dataset.drawn = Object.keys(plots).length;
}

drawAll();
