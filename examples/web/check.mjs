// Drives the page in a headless Chromium, as a person would: node check.mjs CHROMIUM URL PICTURE AREA
// Prints one JSON document: what the page shows, and the mask after the slider was moved to AREA.
import puppeteer from "puppeteer-core";
import { runLengths } from "../javascript/fsagn.mjs";

const [executablePath, url, picture, area] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath, headless: true, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  await page.goto(url);
  const input = await page.waitForSelector("#file");
  await input.uploadFile(picture);
  await page.waitForSelector("#filters button[aria-pressed=true]", { timeout: 60_000 });
  const shown = await page.evaluate(() => ({
    status: document.getElementById("status").textContent,
    predictions: [...document.querySelectorAll("#predictions li")].map((item) => item.textContent),
    filters: window.fsagn.answer.filters.map(({ id, peak, area }) => ({ id, peak, area })),
    size: window.fsagn.explainer.about.input.size,
    isolated: crossOriginIsolated,
  }));
  const masks = [];
  for (const button of await page.$$("#filters button")) {
    await button.click();
    const mask = await page.evaluate((share) => {
      const slider = document.getElementById("area");
      slider.value = share;
      slider.dispatchEvent(new Event("input"));
      return Array.from(window.fsagn.mask);
    }, area);
    masks.push({ size: shown.size, counts: runLengths(mask, shown.size) });
  }
  const painted = await page.evaluate(() => {
    const canvas = document.getElementById("picture");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(data).size;
  });
  await page.evaluate(async () => {
    const drop = new DragEvent("drop", { dataTransfer: new DataTransfer(), cancelable: true });
    drop.dataTransfer.items.add(new File(["no picture"], "broken.png", { type: "image/png" }));
    dispatchEvent(drop);
  });
  await page.waitForSelector("#status.error");
  const complaint = await page.$eval("#status", (status) => status.textContent);
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT });
  console.log(JSON.stringify({ ...shown, masks, painted, complaint, errors }));
} finally {
  await browser.close();
}
