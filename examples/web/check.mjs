// Drives the page in a headless Chromium, as a person would: node check.mjs CHROMIUM URL PICTURE AREA
// Prints one JSON document: what the page shows, and the masks, of evidence and filters, after the slider was moved to AREA.
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
  await page.waitForSelector("main button[aria-pressed=true]", { timeout: 60_000 });
  const shown = await page.evaluate(() => ({
    status: document.getElementById("status").textContent,
    predictions: [...document.querySelectorAll("#predictions li")].map((item) => item.textContent),
    filters: window.fsagn.answer.filters.map(({ id, peak, area, contribution, share }) => ({ id, peak, area, contribution, share })),
    evidence: window.fsagn.answer.evidence.map(({ index, label, decision, area }) => ({ class: index, label, decision, area })),
    told: [...document.querySelectorAll("#evidence li, #filters li")].map((item) => item.textContent),
    size: window.fsagn.explainer.about.input.size,
    isolated: crossOriginIsolated,
  }));
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT, fullPage: true });
  const masks = [];
  for (const button of await page.$$("#evidence button, #filters button")) {
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
  const others = await page.$$("#predictions button");
  const before = shown.evidence[0]?.class;
  if (others.length > 1) {
    await others[1].click();
    await page.waitForFunction((was) => window.fsagn.answer.evidence[0].index !== was, { timeout: 60_000 }, before);
  }
  const other = await page.evaluate(() => window.fsagn.answer.evidence[0]?.index ?? null);
  await page.evaluate(async () => {
    const drop = new DragEvent("drop", { dataTransfer: new DataTransfer(), cancelable: true });
    drop.dataTransfer.items.add(new File(["no picture"], "broken.png", { type: "image/png" }));
    dispatchEvent(drop);
  });
  await page.waitForSelector("#status.error");
  const complaint = await page.$eval("#status", (status) => status.textContent);
  console.log(JSON.stringify({ ...shown, masks, other, painted, complaint, errors }));
} finally {
  await browser.close();
}
