// Opens the demo in Chromium and hands a task in: node watch.mjs CHROMIUM URL TASK SCREENSHOT; what it saw, as JSON.
import { chromium } from "playwright-core";

const [executablePath, url, task, screenshot] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--no-proxy-server"] });
const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
const faults = [];
page.on("pageerror", error => faults.push(String(error)));
page.on("console", message => message.type() === "error" && faults.push(message.text()));

const answer = await page.goto(url);
const source = await answer.text();
await page.locator("#user").filter({ hasText: "Signed in as" }).waitFor({ timeout: 20000 });
const seen = { user: await page.locator("#user").innerText(), address: page.url(), source, policy: answer.headers()["content-security-policy"] };
if (screenshot) await page.screenshot({ path: screenshot.replace(".png", "-begin.png") });

await page.locator("#text").fill(task);
await page.locator("#send").click();
await page.locator("#hops li").nth(0).waitFor({ timeout: 60000 });
if (screenshot) await page.screenshot({ path: screenshot.replace(".png", "-meanwhile.png") });
await page.locator("#state").filter({ hasText: /done|error|canceled/ }).waitFor({ timeout: 240000 });

seen.state = await page.locator("#state").innerText();
seen.hops = await page.locator("#hops li").allInnerTexts();
seen.memory = await page.locator("#memory li .who").allInnerTexts();
seen.plan = await page.locator(".said.plan pre").allInnerTexts();
seen.answer = await page.locator(".said.answer pre").allInnerTexts();
seen.others = await page.locator("#others").innerText();
seen.notice = await page.locator("#notice").innerText();
seen.faults = faults;
if (screenshot) await page.screenshot({ path: screenshot, fullPage: true });
await browser.close();
console.log(JSON.stringify(seen));
